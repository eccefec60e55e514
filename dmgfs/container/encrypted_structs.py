"""On-disk structures of Apple's encrypted images: the version 2 header (`encrcdsa`, at the start of the file or of a
bundle's `token`), its key items, and the version 1 trailer (`cdsaencr`, the last 1276 bytes). Big-endian; the field names
are CDSA's and the CSSM numbers below are what those fields hold. Parsed once per mount, so construct does it all.
"""

from construct import Bytes, Const, Int32ub, Int64ub, Struct

HEADER_MAGIC = b"encrcdsa"
TRAILER_MAGIC = b"cdsaencr"

ALGORITHM_3DES = 0x11  # CSSM_ALGID_3DES_3KEY_EDE
ALGORITHM_AES = 0x80000001  # CSSM_ALGID_AES
ALGORITHM_HMAC_SHA1 = 0x5B  # CSSM_ALGID_SHA1HMAC
ALGORITHM_PBKDF2 = 103  # CSSM_ALGID_PKCS5_PBKDF2
MODE_CBC = 5  # CSSM_ALGMODE_CBC_IV8 in name, CBC in fact
MODE_CBC_PADDED = 6  # CSSM_ALGMODE_CBCPadIV8
PADDING_PKCS7 = 7

KEY_PASSPHRASE, KEY_CERTIFICATE, KEY_BAG = 1, 2, 3

Header = Struct(
    "signature" / Const(HEADER_MAGIC),
    "version" / Int32ub,
    "blockIvLength" / Int32ub,
    "blockMode" / Int32ub,
    "blockAlgorithm" / Int32ub,
    "blockKeyBits" / Int32ub,
    "ivKeyAlgorithm" / Int32ub,
    "ivKeyBits" / Int32ub,
    "uuid" / Bytes(16),
    "blockSize" / Int32ub,
    "dataLength" / Int64ub,
    "dataOffset" / Int64ub,
    "keyCount" / Int32ub,
)

KeyItem = Struct(
    "type" / Int32ub,
    "offset" / Int64ub,
    "length" / Int64ub,
)

PassphraseKey = Struct(
    "kdfAlgorithm" / Int32ub,
    "kdfPrngAlgorithm" / Int32ub,
    "kdfIterationCount" / Int32ub,
    "kdfSaltLength" / Int32ub,
    "kdfSalt" / Bytes(32),
    "blobIvLength" / Int32ub,
    "blobIv" / Bytes(32),
    "blobKeyBits" / Int32ub,
    "blobAlgorithm" / Int32ub,
    "blobPadding" / Int32ub,
    "blobMode" / Int32ub,
    "blobLength" / Int32ub,
)

Trailer = Struct(
    "uuid" / Bytes(16),
    "blockSize" / Int32ub,
    "keyAlgorithm" / Int32ub,
    "keyPadding" / Int32ub,
    "keyMode" / Int32ub,
    "keyBits" / Int32ub,
    "keyIvLength" / Int32ub,
    "kdfAlgorithm" / Int32ub,
    "kdfPrngAlgorithm" / Int32ub,
    "kdfIterationCount" / Int32ub,
    "kdfSaltLength" / Int32ub,
    "kdfSalt" / Bytes(32),
    "blockIvLength" / Int32ub,
    "blockMode" / Int32ub,
    "blockAlgorithm" / Int32ub,
    "blockKeyBits" / Int32ub,
    "blockKeyIv" / Bytes(32),
    "wrappedBlockKeyLength" / Int32ub,
    "wrappedBlockKey" / Bytes(256),
    "ivKeyAlgorithm" / Int32ub,
    "ivKeyBits" / Int32ub,
    "ivKeyIv" / Bytes(32),
    "wrappedIvKeyLength" / Int32ub,
    "wrappedIvKey" / Bytes(256),
    "integrityAlgorithm" / Int32ub,
    "integrityKeyBits" / Int32ub,
    "integrityKeyIv" / Bytes(32),
    "wrappedIntegrityKeyLength" / Int32ub,
    "wrappedIntegrityKey" / Bytes(256),
    "unknownLength" / Int32ub,
    "unknown" / Bytes(256),
    "dataLength" / Int64ub,
    "version" / Int32ub,
    "signature" / Const(TRAILER_MAGIC),
)

HEADER_SIZE: int = Header.sizeof()  # 0x4C
KEY_ITEM_SIZE: int = KeyItem.sizeof()  # 20
PASSPHRASE_KEY_SIZE: int = PassphraseKey.sizeof()  # 104, then blobLength bytes
TRAILER_SIZE: int = Trailer.sizeof()  # 1276
