"""dmgfs rc: what makes an init system run rc.live (scripts/rc.live) at start and stop: a launchd job (as
com.apple.install.cd is one), a systemd unit, a System V script.

Rules that hold here:
- text only: it goes to standard output, and nothing is installed;
- paths are absolute and quoted as each format asks for; what cannot be written in one is refused.
"""

import argparse
import plistlib
import re
import shlex
import sys

from dmgfs.cli.report import printable

SUMMARY = "write the job, unit or script by which an init system runs rc.live"

USAGE = 64
STYLES = ("launchd", "systemd", "sysv")
LABEL = "com.dmgfs.rc.live"

_WORD = re.compile(r"/[\w@.+,:/=-]*\Z")

UNIT = """\
[Unit]
Description=Live system on a disk image (dmgfs)
DefaultDependencies=no
After=local-fs-pre.target systemd-remount-fs.service
Before=local-fs.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists={config}
SurviveFinalKillSignal=yes

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {script} start {config}
ExecStop=/bin/sh {script} stop {config}
StandardOutput=journal+console
TimeoutStartSec=infinity
# The daemons are the file system: they end when it is unmounted, not with the unit.
KillMode=process

[Install]
WantedBy=local-fs.target
"""

SYSV = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          dmgfs-live
# Required-Start:    mountkernfs
# Required-Stop:     mountkernfs
# Default-Start:     S
# Default-Stop:      0 6
# Short-Description: Live system on a disk image (dmgfs)
### END INIT INFO

case ${{1:-}} in
    start | stop | status) exec /bin/sh {script} "$1" {config} ;;
    restart | force-reload)
        /bin/sh {script} stop {config} && exec /bin/sh {script} start {config} ;;
    *)
        echo "usage: $0 start|stop|status|restart" >&2
        exit 64 ;;
esac
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--style", choices=STYLES, required=True, help="for which init system")
    add("--script", metavar="PATH", default="/etc/rc.live", help="where rc.live is, default /etc/rc.live")
    add("--config", metavar="PATH", default="/etc/dmgfs/rc.live.conf", help="what it reads")


def run(args: argparse.Namespace) -> int:
    for path in (args.script, args.config):
        if not path.startswith("/") or "\n" in path or (args.style == "systemd" and not _WORD.match(path)):
            print(printable(f"dmgfs: rc: {path}: write an absolute path without blanks or quotes"), file=sys.stderr)
            return USAGE
    sys.stdout.write(text(args.style, args.script, args.config))
    return 0


def text(style: str, script: str, config: str) -> str:
    if style == "launchd":
        job = {
            "Label": LABEL,
            "ProgramArguments": ["/bin/sh", script, "start", config],
            "RunAtLoad": True,
            "LaunchOnlyOnce": True,
            "AbandonProcessGroup": True,
            "StandardOutPath": "/dev/console",
            "StandardErrorPath": "/dev/console",
        }
        return plistlib.dumps(job).decode()
    if style == "systemd":
        return UNIT.format(script=script, config=config)
    return SYSV.format(script=shlex.quote(script), config=shlex.quote(config))
