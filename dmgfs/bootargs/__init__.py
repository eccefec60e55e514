"""What a boot loader says about the root file system: text in, values out. Standard library only, nothing is opened.

cmdline    the kernel's command line: dmgfs.*, and the words of Darwin (rp=, rp0=, rp1=, root-dmg=, container-dmg=)
rootpath   the path of an image on this machine in them
netboot    root paths in all their forms, on servers too
"""
