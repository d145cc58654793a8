#!/usr/bin/env python3
"""Check a Strongroom archive, a proof of single records, or an evidence pack, without Strongroom.

This program was written only from docs/proof.md, docs/format.md and the specifications that they
name. It needs Python 3.9 or later and only the standard library. If `pyarrow` is installed, the
rows inside the Parquet files are also checked; otherwise the report says that they were not.

    python3 verify.py archive DIR --public-key VKEY [--witness VKEY]... [--remembered FILE]... [--since REPORT] [--json FILE] [--no-rows]
    python3 verify.py archive s3://BUCKET/PREFIX --public-key VKEY [--endpoint URL] [as above]
    python3 verify.py proof FILE --public-key VKEY [--witness VKEY]... [--print]
    python3 verify.py pack DIR --public-key VKEY [--witness VKEY]... [--json FILE]

Exit code 0: no finding; 1: findings; 2: the check could not be done. The program writes only the
file of --json, opens no connection except to the store that the command line names, and follows no
symbolic link below DIR. If a path named in an archive does not have the one allowed form, the
program does not open it.

For an archive in a bucket, the program uses the credentials in AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and, if set, AWS_SESSION_TOKEN, and the region in AWS_REGION (`aws configure
export-credentials --format env` prints the credentials of a profile). The credentials need the
permissions s3:GetObject, s3:GetObjectVersion, s3:ListBucket, s3:ListBucketVersions,
s3:GetObjectRetention and s3:GetObjectLegalHold, and none that allows writing. Versions, locks and
holds are only as true as the answers of the store. So ask the store over TLS, from your own machine
(SSL_CERT_FILE names the authorities to trust, if they are not the system's).

The parts of this file, from top to bottom, are: Ed25519, Merkle trees, strict JSON and base64,
signed notes, keys, retention, stores (a folder, a bucket), the archive (points of "Checking an
archive"), Parquet (points 8 and 16), single proofs, evidence packs (points of "Checking a pack"),
the command line. Numbers such as "point 7" are those of docs/proof.md.
"""
import argparse
import base64
import bisect
import binascii
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import ipaddress
import json
import math
import os
import re
import ssl
import stat
import sys
import tempfile
import time
import unicodedata
import urllib.parse
import xml.etree.ElementTree
from collections import defaultdict

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None

TABLES = ("events", "rejects", "alerts", "activity")
TIME_COLUMN = {"events": "stage_timestamp", "rejects": "received_timestamp", "alerts": "time", "activity": "time"}  # format.md, Layout
NOTE_BYTES_MAX = 1 << 20
STRANGERS_MAX = 10_000  # how many files and folders are examined that do not belong to the archive
STRANGER = "a Parquet file where an archive has none; readers by pattern would read it"
SIGNATURES_MAX = 100  # signed-note: "SHOULD apply a maximum limit", at least 16
COMMIT_BYTES_MAX = 256 << 20
FILE_BYTES_MAX = 1 << 30  # point 7
PROOF_BYTES_MAX = 1 << 30
DIGITS_MAX = 19  # in a number in JSON; all numbers are 64-bit
CLOCK_BACK_MS_MAX = 10 * 60 * 1000  # point 6
RECENT_MS_MAX = 60 * 60 * 1000  # points 3 and 12
COMMITS_AHEAD_MAX = 1  # point 11: a killed run leaves alerts and rejects of one seal without their events
TIMESTAMP_MS_END = 253402300800000  # 10000-01-01, where years have five digits
TIME_US_FIRST = -62167219200000000  # 0000-01-01
FINDINGS_MAX = 100_000
BLOCK_BYTES = 1 << 20
TOLD_MAX = 20  # how many files that a Delta checkpoint leaves out are reported
ADD_MEMBERS = {"path", "partitionValues", "size", "modificationTime", "dataChange", "stats", "tags"}  # point 7
DAY_US = 86_400_000_000
PLAUSIBLE_FROM_US = 1_388_534_400_000_000  # 2014-01-01, format.md, Layout
PATH = re.compile(r"date=(\d{4}-\d{2}-\d{2})/[0-9a-f]{32}\.parquet", re.ASCII)
# A UTC year of commits, or a part of one: 2026, 2026-0001.
PERIOD = "[2-9][0-9]{3}(?:-(?!0000)[0-9]{4})?"
VOLUME = re.compile("(%s)/(%s)" % ("|".join(TABLES), PERIOD), re.ASCII)
CLOSED = "#closed"  # appId of a `txn` in the last commit of a closed volume
RECORDS = ("_retention", "_holds", "_dropped", "_clock")  # docs/proof.md, Retention, holds and drops
YEARS_DEFAULT, YEARS_MAX = 6, 100
CLOCK_RECORDS_MAX = 10_000
YEAR_MIN = 2000  # of a volume
LINE_BYTES_MAX = 1000
ANSWER_BYTES_MAX = 64 << 20  # maximum size of a store's answer, except one with the bytes of an object
ASK_TRIES, ASK_PAUSE_S, ASK_TIMEOUT_S, ASKED_AT_ONCE = 5, 0.5, 60, 16
# Error codes of stores that do not depend on the requested object.
NO_ANSWERS = {
    "NoSuchBucket", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed", "PermanentRedirect",
}  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
HEX32 = re.compile(r"[0-9a-f]{64}", re.ASCII)
VERSION_ID = re.compile(r"[!-~]{0,1024}", re.ASCII)
STORE_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", re.ASCII)
DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class CannotCheck(Exception):
    """The check could not be done, which gives exit code 2. The text says in one sentence why."""


class Unreadable(CannotCheck):
    """A file of the archive exists but cannot be read. This gives exit code 2, or the finding
    `file_unreadable` for a data file."""


class Malformed(Exception):
    """The bytes do not have the form that the document requires. The text says why."""


class BadSignature(Exception):
    """The signature under the name of a known key was not made by that key."""


# Ed25519, RFC 8032 section 5.1. A point is in extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def point_add(a, b):
    """RFC 8032 section 5.1.4. The formulas are complete: they are also valid for a = b."""
    u, v = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    w, z = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = v - u, z - w, z + w, v + u
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_double(a):
    """RFC 8032 section 5.1.4, the formulas for doubling."""
    u, v, w = a[0] * a[0] % P, a[1] * a[1] % P, 2 * a[2] * a[2] % P
    h = u + v
    e, g = h - (a[0] + a[1]) ** 2 % P, u - v
    f = w + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_decode(data):
    """RFC 8032 section 5.1.3; None for anything that is not a canonical encoding of a point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * SQRT_MINUS_1 % P
    if (v * x * x - u) % P != 0 or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def point_encode(a):
    """RFC 8032 section 5.1.2."""
    z = pow(a[2], -1, P)
    x, y = a[0] * z % P, a[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = point_decode(bytes([0x58]) + bytes([0x66]) * 31)  # y = 4/5, x even


def point_multiply_add(s, a, k, b):
    """[s]a + [k]b, both scalars in one pass from the highest bit down."""
    both, r = point_add(a, b), IDENTITY
    for i in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
        r = point_double(r)
        which = (s >> i & 1) + 2 * (k >> i & 1)
        if which:
            r = point_add(r, (a, b, both)[which - 1])
    return r


def ed25519_verify(public_key, message, signature):
    """Returns True if the signature is valid by RFC 8032 section 5.1.7, in its strict reading:

    - [S]B = R + [k]A holds without the cofactor.
    - S is below L.
    - A and R are encoded canonically. For R this is certain because the program computes the point
      and compares its canonical encoding, byte by byte, with the one in the signature.
    - A is not one of the points of order 8 or less. Anyone can make signatures for such a key.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, s = point_decode(public_key), int.from_bytes(signature[32:], "little")
    if a is None or s >= L or point_encode(point_double(point_double(point_double(a)))) == point_encode(IDENTITY):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    minus_a = (P - a[0], a[1], a[2], P - a[3])
    return point_encode(point_multiply_add(s, BASE, k, minus_a)) == signature[:32]


# Merkle trees, RFC 6962 section 2.1.


def sha256(data):
    return hashlib.sha256(data).digest()


def record_hash(mark, record):
    """proof.md, What a record is: the leaf hash of a record, and of its mark if the row has one."""
    return leaf_hash(record) if mark is None else sha256(b"\x02" + mark.encode("utf-8", "surrogatepass") + b"\n" + record)


def leaf_hash(data):
    return sha256(b"\x00" + data)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


class MerkleTree:
    """The tree over the leaf hashes that were added. It is kept as the roots of its perfect
    subtrees, the greatest first (k of RFC 6962)."""

    def __init__(self):
        self.size, self.subtrees = 0, []

    def add(self, leaf):
        self.size += 1
        count = self.size
        while count % 2 == 0:  # two subtrees of one size become one
            leaf, count = node_hash(self.subtrees.pop(), leaf), count // 2
        self.subtrees.append(leaf)

    def root(self):
        if not self.subtrees:
            return sha256(b"")
        root = self.subtrees[-1]
        for subtree in reversed(self.subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


def merkle_root(leaves):
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def inclusion_root(index, size, leaf, path):
    """RFC 9162 section 2.1.3.2: the root that the path leads to, or None."""
    if not 0 <= index < size:
        return None
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return r if sn == 0 else None


def tile_path(level, index, width=256):
    """tlog-tiles, "Merkle Tree": tile/<L>/<N>[.p/<W>], N in groups of three digits."""
    name, index = "%03d" % (index % 1000), index // 1000
    while index:
        name, index = "x%03d/%s" % (index % 1000, name), index // 1000
    return "tile/%d/%s%s" % (level, name, "" if width == 256 else ".p/%d" % width)


def tiles_of(size):
    """(level, index, width) of every tile of a tree of that size."""
    level = 0
    while size:
        for index in range(size // 256):
            yield level, index, 256
        if size % 256:
            yield level, size // 256, size % 256
        size, level = size // 256, level + 1


def tile_levels(leaves):
    """The hashes at each level of tiles. The hashes of level L+1 are the roots of the full tiles of
    level L."""
    levels = [leaves]
    while len(levels[-1]) >= 256:
        below = levels[-1]
        levels.append([merkle_root(below[i : i + 256]) for i in range(0, len(below) - 255, 256)])
    return levels


# Strict reading of JSON, base64 and decimals. Ambiguous input is refused.


def parse_json(data):
    """Returns the value. An integer that 64 bits cannot hold is a float, as is -0. Raises Malformed if
    the data is not UTF-8 or not JSON, repeats a key in an object, has a number that no float can
    hold, has half a surrogate pair, or is nested too deep."""

    def unique(pairs):
        value = dict(pairs)
        if len(value) != len(pairs):
            raise Malformed("an object has the same key twice")
        return value

    def real(text):
        value = float(text)
        if math.isinf(value):
            raise Malformed("a number is too large")
        return value

    def integer(text):
        if len(text) > DIGITS_MAX + 1 or text == "-0":
            return real(text)
        value = int(text)
        return value if -(1 << 63) <= value < 1 << 64 else real(text)

    def constant(text):
        raise Malformed("%s is not JSON" % text)

    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=unique, parse_int=integer, parse_float=real, parse_constant=constant)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise Malformed("half a surrogate pair")
    except UnicodeDecodeError as e:
        raise Malformed("not UTF-8 at byte %d" % e.start)
    except RecursionError:
        raise Malformed("nested too deep")
    except ValueError as e:
        raise Malformed("not JSON: %s" % e)


def is_int(value, least=0):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def parse_base64(text, length=None):
    """Standard alphabet, with padding, and only the canonical form (RFC 4648 section 3.5)."""
    if not isinstance(text, str):
        raise Malformed("base64 is not a string")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Malformed("not base64")
    if base64.b64encode(data).decode() != text:
        raise Malformed("base64 is not canonical")
    if length is not None and len(data) != length:
        raise Malformed("base64 has %d bytes, not %d" % (len(data), length))
    return data


def parse_decimal(text):
    if not DECIMAL.fullmatch(text):
        raise Malformed("%s is not a decimal number" % shown(text))
    return int(text)


def parse_hash(text):
    if not isinstance(text, str) or not HEX32.fullmatch(text):
        raise Malformed("not 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def shown(text, limit=200):
    """Makes text from an archive safe for a terminal: without control characters, direction marks
    and lone surrogates, and cut to `limit` characters."""
    text = str(text)
    cut = text[:limit] + ("…" if len(text) > limit else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


# Signed notes, C2SP signed-note.


class Note:
    """A signed note. `text` is bytes, with its last newline; `signatures` is a list of (name, key
    id, signature)."""

    def __init__(self, data):
        if len(data) > NOTE_BYTES_MAX:
            raise Malformed("larger than %d bytes" % NOTE_BYTES_MAX)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as e:
            raise Malformed("not UTF-8 at byte %d" % e.start)
        if any(c < " " and c != "\n" for c in text):
            raise Malformed("a control character")
        body, blank, lines = text.rpartition("\n\n")  # "the last empty line in the note"
        if not blank or not body or not lines.endswith("\n"):
            raise Malformed("not a signed note: text, an empty line, signature lines")
        self.text, self.lines, self.signatures = (body + "\n").encode(), body.split("\n"), []
        for line in lines[:-1].split("\n"):
            parts = line.split(" ")
            if len(parts) != 3 or parts[0] != "\u2014" or not parts[1] or "+" in parts[1] or any(c.isspace() for c in parts[1]):
                raise Malformed("not a signature line: %s" % shown(line))
            signature = parse_base64(parts[2])
            if len(signature) < 5:
                raise Malformed("a signature is too short")
            self.signatures.append((parts[1], signature[:4], signature[4:]))
        if len(self.signatures) > SIGNATURES_MAX:
            raise Malformed("more than %d signatures" % SIGNATURES_MAX)

    def signers(self, name, keys):
        """Returns the members of `keys` that signed the note under `name`. If a signature line of
        one of the keys is invalid, the whole note is invalid, as the specification advises."""
        found = []
        for key in keys:
            for _, _, signature in (s for s in self.signatures if s[:2] == (name, key_id(name, key))):
                if not ed25519_verify(key, self.text, signature):
                    raise BadSignature("the signature under key %s is not valid" % key_id(name, key).hex())
                found.append(key)
        return found


def key_id(name, key):
    """signed-note, "Ed25519 signatures"."""
    return sha256(name.encode() + b"\n\x01" + key)[:4]


def parse_public_key(text):
    """32 bytes from a vkey (<name>+<8 hex>+<base64(0x01 || key)>) or from bare base64."""
    if not isinstance(text, str):
        raise Malformed("a public key is not a string")
    try:
        return parse_base64(text, 32)
    except Malformed:
        pass
    name, _, rest = text.partition("+")
    hint, plus, encoded = rest.partition("+")
    if not plus or not name or any(c.isspace() for c in name):
        raise Malformed("%s is neither a vkey (name+id+base64) nor base64 of 32 bytes" % shown(text))
    key = parse_base64(encoded, 33)
    if key[0] != 1:
        raise Malformed("the vkey is not one of Ed25519 (type 0x01)")
    try:
        matches = key_id(name, key[1:]).hex() == hint
    except UnicodeEncodeError:
        raise Malformed("the name of the vkey is not UTF-8")
    if not matches:
        raise Malformed("the key id in the vkey is not that of its key: mistyped?")
    return key[1:]


class Witness:
    """A witness, which cosigns checkpoints by C2SP tlog-cosignature (version 1, Ed25519). It is
    given by a vkey whose type is 0x04."""

    def __init__(self, vkey):
        name, _, rest = vkey.partition("+")
        hint, plus, encoded = rest.partition("+")
        if not plus or not name or any(c.isspace() for c in name):
            raise Malformed("%s is not the vkey of a witness (name+id+base64)" % shown(vkey))
        key = parse_base64(encoded, 33)
        if key[0] != 4:
            raise Malformed("%s is not the vkey of a witness: its type is 0x%02x, not 0x04" % (shown(vkey), key[0]))
        self.name, self.key = name, key[1:]
        try:
            self.id = sha256(name.encode() + b"\n" + key)[:4]
        except UnicodeEncodeError:
            raise Malformed("the name of the vkey is not UTF-8")
        if self.id.hex() != hint:
            raise Malformed("the key id in the vkey of %s is not that of its key: mistyped?" % shown(name))

    def cosigned(self, note):
        """Returns when the witness cosigned the text, in seconds since 1970: the oldest time if
        there are several cosignatures, and None if there is none."""
        times = []
        for _, _, data in (s for s in note.signatures if s[:2] == (self.name, self.id)):
            seconds = int.from_bytes(data[:8], "big")
            message = b"cosignature/v1\ntime %d\n" % seconds + note.text
            if len(data) != 72 or seconds >= 1 << 63 or not ed25519_verify(self.key, message, data[8:]):
                raise BadSignature("the cosignature under the name of %s is not valid" % shown(self.name))
            times.append(seconds)
        return min(times, default=None)


class Checkpoint:
    """A checkpoint: a note whose text consists of three lines, which are origin, size and root
    (proof.md, Checkpoints)."""

    def __init__(self, data):
        self.note = Note(data)
        if len(self.note.lines) != 3:
            raise Malformed("the text of a checkpoint has three lines, not %d" % len(self.note.lines))
        self.origin, self.size = self.note.lines[0], parse_decimal(self.note.lines[1])
        self.root = parse_base64(self.note.lines[2], 32)


class KeyRecord:
    """A key record (proof.md, Key records). The lines of its text must be in the one allowed
    order."""

    def __init__(self, data):
        self.note = Note(data)
        lines = list(self.note.lines)

        def value(name):
            key, space, rest = (lines.pop(0) if lines else "").partition(" ")
            if key != name or not space:
                raise Malformed("no line `%s` in its place" % name)
            return rest

        number = value("strongroom")
        if not number.startswith("key "):
            raise Malformed("no line `strongroom key` in its place")
        self.number, self.archive = parse_decimal(number[4:]), value("archive")
        if not UUID.fullmatch(self.archive):
            raise Malformed("`archive` is not a UUID in lower case")
        self.manifest, made = parse_hash(value("manifest")), value("time")
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made, re.ASCII):
                raise ValueError
            datetime.datetime.fromisoformat(made[:-1])
        except ValueError:
            raise Malformed("time is not like 2026-03-02T10:00:00Z")
        self.key, self.previous, self.logs = parse_base64(value("key"), 32), None, {}
        if self.number > 1:
            self.previous = parse_base64(value("previous"), 32)
        while lines and self.number > 1:
            parts = value("log").split(" ")
            if len(parts) != 3 or not VOLUME.fullmatch(parts[0]):
                raise Malformed("a `log` line is not `log <table>/<period> <size> <root>`")
            self.logs[parts[0]] = (parse_decimal(parts[1]), parse_base64(parts[2], 32))
        if lines:
            raise Malformed("more lines than a key record has")
        # The `log` lines must be sorted, and no volume may occur twice. Then writing the parsed
        # lines again gives the lines of the note.
        if [" ".join(("log", v, str(s), base64.b64encode(r).decode())) for v, (s, r) in sorted(self.logs.items())] != self.note.lines[6 if self.number > 1 else 5 :]:
            raise Malformed("`log` lines are not sorted, or a volume occurs twice")


class Keys:
    """The key records before the first invalid one; all of them if every record is valid."""

    def __init__(self):
        self.records = []

    def all(self):
        return [r.key for r in self.records]

    def retired_at(self, key, volume):
        """Returns None if `key` is the current key. For a retired key, returns the size and root of
        the volume's tree up to which its signatures count, from the `log` line of the record that
        retired it; (-1, None) if that record has no line for the volume."""
        i = self.all().index(key)
        if i + 1 == len(self.records):
            return None
        return self.records[i + 1].logs.get(volume, (-1, None))


def check_keys(files, manifest, public_key, archive_id, trusted, report):
    """Point 1, except for the form of the manifest. files: list of (where, bytes), with record 1
    first. Returns Keys. Also sets report.archive_id."""
    keys, changed = Keys(), False
    for number, (where, data) in enumerate(files, 1):
        try:
            record = KeyRecord(data)
            if record.number != number:
                raise Malformed("it says it is number %d" % record.number)
            archive_id = archive_id or record.archive
            if record.archive != archive_id:
                raise Malformed("it is of archive %s" % shown(record.archive))
            need = [record.key]
            if number > 1:
                before = keys.records[-1]
                if record.previous != before.key or record.manifest != before.manifest:
                    raise Malformed("`previous` or `manifest` is not that of the record before")
                if record.key in keys.all():
                    raise Malformed("the key was used before")
                need.append(before.key)
            missing = set(need) - set(record.note.signers("strongroom/%s/keys" % archive_id, need))
            if missing:
                raise Malformed("not signed by the %s key" % ("new" if record.key in missing else "previous"))
        except (Malformed, BadSignature) as e:
            report.finding("key_record", where, str(e))
            report.skipped("key records after the invalid one, and signatures of their keys")
            break
        if record.manifest != sha256(manifest) and not changed:
            changed = True
            report.finding("manifest_changed", "strongroom.json", "its SHA-256 is not the one that %s names" % where)
        if number == 1 and public_key is not None and record.key != public_key:
            report.finding("key_mismatch", where, "its key is not the `public_key` of strongroom.json")
        keys.records.append(record)
        report.count("key_records")
    report.archive_id = archive_id
    if not trusted:
        report.skipped("whether the keys are those of the archive's owner: no public key was given (--public-key)")
    elif not set(trusted) & set(keys.all()):
        report.finding("key_untrusted", "_keys", "none of the public keys given is in the chain of keys")
    return keys


# Timestamps, RFC 3161 with RFC 5816: a CMS SignedData (RFC 5652) over a TSTInfo, in DER. Signatures are RSA (PKCS #1 v1.5) or ECDSA on P-256 and P-384.

DIGESTS = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512"}
# Signature algorithms, and the digest that each implies. For rsaEncryption (None), the digest is
# given elsewhere in the token.
SIGNATURES = {
    "1.2.840.113549.1.1.1": None,
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
DIGEST_INFO = {"sha256": "3031300d060960864801650304020105000420", "sha384": "3041300d060960864801650304020205000430", "sha512": "3051300d060960864801650304020305000440"}
# SEC 2: p, b, the base point, its order; a is -3.
CURVES = {
    "1.2.840.10045.3.1.7": (
        0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5),
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "1.3.132.0.34": (
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFFFF0000000000000000FFFFFFFF,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        (
            0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
            0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
        ),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
}
TIME_STAMPING = "1.3.6.1.5.5.7.3.8"
CHAIN_MAX = 8


class Der:
    """Reads consecutive values in strict DER."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def more(self):
        return self.at < len(self.data)

    def peek(self):
        return self.data[self.at] if self.more() else None

    def whole(self, tag=None):
        """Returns (content, all bytes) of the next value. Raises Malformed if its tag is not
        `tag`."""
        data, start = self.data, self.at
        if len(data) - start < 2 or data[start] & 31 == 31 or (tag is not None and data[start] != tag):
            raise Malformed("not the expected DER value at byte %d" % start)
        length, at = data[start + 1], start + 2
        if length > 127:
            count = length & 127
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
            if not 1 <= count <= 4 or length < 128 or length >> 8 * (count - 1) == 0:
                raise Malformed("a length is not DER")
        if at + length > len(data):
            raise Malformed("a value is cut off")
        self.at = at + length
        return data[at : self.at], data[start : self.at]

    def content(self, tag):
        return self.whole(tag)[0]

    def inside(self, tag=0x30):
        return Der(self.content(tag))

    def integer(self):
        data = self.content(2)
        if not data:
            raise Malformed("an integer without bytes")
        return int.from_bytes(data, "big", signed=True)

    def oid(self):
        data, numbers, value = self.content(6), [], 0
        for byte in data:
            value = value << 7 | byte & 127
            if not byte & 128:
                numbers.append(value)
                value = 0
        if not numbers or data[-1] & 128:
            raise Malformed("not an object identifier")
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, [first, numbers[0] - 40 * first] + numbers[1:]))

    def end(self):
        if self.more():
            raise Malformed("extra bytes after the value")


def der_time(der):
    """UTCTime or GeneralizedTime, in UTC."""
    tag = der.peek()
    text = der.whole()[0].decode("ascii", "replace")
    if tag == 0x17 and re.fullmatch(r"\d{12}Z", text, re.ASCII):
        text = ("20" if text < "5" else "19") + text
    elif tag != 0x18 or not re.fullmatch(r"\d{14}(\.\d{1,9})?Z", text, re.ASCII):
        raise Malformed("no time")
    try:
        return datetime.datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        raise Malformed("not a valid time")


class Certificate:
    """The fields of an X.509 certificate (RFC 5280) that are needed to check the chain of a
    timestamp."""

    def __init__(self, der):
        self.der = der
        outer = Der(der).inside()
        body, self.signed = outer.whole(0x30)
        self.algorithm = outer.inside().oid()
        self.signature = outer.content(3)[1:]
        body = Der(body)
        if body.peek() == 0xA0:
            body.whole()
        self.serial = body.content(2)
        body.whole(0x30)
        self.issuer = body.whole(0x30)[1]
        validity = body.inside()
        self.since, self.until = der_time(validity), der_time(validity)
        self.subject, key = body.whole(0x30)[1], body.inside()
        kind = key.inside()
        self.kind = kind.oid()
        self.curve = kind.oid() if kind.peek() == 6 else None
        self.key = key.content(3)[1:]
        self.extensions = {}
        while body.more():
            tag, content = body.peek(), body.whole()[0]
            if tag == 0xA3:
                extensions = Der(content).inside()
                while extensions.more():
                    extension = extensions.inside()
                    name = extension.oid()
                    critical = extension.peek() == 1 and extension.content(1) == b"\xff"
                    if name in self.extensions:
                        raise Malformed("an extension occurs twice")
                    self.extensions[name] = critical, extension.content(4)

    def verifies(self, algorithm, digest, message, signature):
        """Returns True if this certificate's key made `signature` over `message`. `digest` is used
        only if `algorithm` implies none."""
        if algorithm not in SIGNATURES:
            raise BadSignature("unsupported signature algorithm %s" % algorithm)
        digest = SIGNATURES[algorithm] or digest
        hashed = hashlib.new(digest, message).digest()
        if self.kind == "1.2.840.113549.1.1.1" and algorithm.startswith("1.2.840.113549.1.1."):
            numbers = Der(self.key).inside()
            n, e = numbers.integer(), numbers.integer()
            size = (n.bit_length() + 7) // 8
            if n.bit_length() < 2048 or n.bit_length() > 16384 or not 3 <= e < 1 << 64 or len(signature) != size:
                return False
            info = bytes.fromhex(DIGEST_INFO[digest]) + hashed
            expected = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
            return pow(int.from_bytes(signature, "big"), e, n).to_bytes(size, "big") == expected
        if self.kind == "1.2.840.10045.2.1" and algorithm.startswith("1.2.840.10045.4.3.") and self.curve in CURVES:
            pair = Der(signature).inside()
            return ecdsa_verify(CURVES[self.curve], self.key, hashed, pair.integer(), pair.integer())
        return False

    def may_sign_others(self):
        _, value = self.extensions.get("2.5.29.19", (False, b"\x30\x00"))
        inside = Der(value).inside()
        is_authority = inside.peek() == 1 and inside.content(1) == b"\xff"
        usage = self.extensions.get("2.5.29.15")
        bits = Der(usage[1]).content(3) if usage else b"\x00\x04"
        return is_authority and len(bits) > 1 and bool(bits[1] & 0x04)

    def purposes(self):
        value, found = Der(self.extensions.get("2.5.29.37", (False, b"\x30\x00"))[1]).inside(), []
        while value.more():
            found.append(value.oid())
        return found


def ecdsa_verify(curve, encoded, hashed, r, s):
    """SEC 1, section 4.1.4."""
    p, b, base, n = curve
    size = (p.bit_length() + 7) // 8
    if len(encoded) != 1 + 2 * size or encoded[0] != 4 or not (0 < r < n and 0 < s < n):
        return False
    key = int.from_bytes(encoded[1 : 1 + size], "big"), int.from_bytes(encoded[1 + size :], "big")
    if max(key) >= p or (key[1] ** 2 - key[0] ** 3 + 3 * key[0] - b) % p:
        return False

    def add(one, two):
        if one is None or two is None:
            return one or two
        if one[0] == two[0]:
            if (one[1] + two[1]) % p == 0:
                return None
            slope = 3 * (one[0] ** 2 - 1) * pow(2 * one[1], -1, p)
        else:
            slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, p)
        x = (slope**2 - one[0] - two[0]) % p
        return x, (slope * (one[0] - x) - one[1]) % p

    def times(scalar, point):
        result = None
        for bit in bin(scalar)[2:]:
            result = add(result, result)
            if bit == "1":
                result = add(result, point)
        return result

    number = int.from_bytes(hashed, "big") >> max(0, 8 * len(hashed) - n.bit_length())
    inverse = pow(s, -1, n)
    point = add(times(number * inverse % n, base), times(r * inverse % n, key))
    return point is not None and point[0] % n == r


def read_authorities(path):
    """The certificates of a PEM file."""
    text = read_given(path, NOTE_BYTES_MAX).decode("ascii", "replace")
    blocks = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.DOTALL)
    try:
        found = [Certificate(base64.b64decode("".join(block.split()), validate=True)) for block in blocks]
    except (Malformed, ValueError, binascii.Error) as e:
        raise CannotCheck("%s has a certificate that cannot be read: %s" % (path, e))
    if not found:
        raise CannotCheck("%s has no certificate" % path)
    return found


class Timestamp:
    """A TimeStampToken. `time` and `imprint` (a SHA-256) are only what the token claims until
    check() has verified its signature."""

    def __init__(self, token):
        outer = Der(token)
        info = outer.inside()
        outer.end()
        if info.oid() != "1.2.840.113549.1.7.2":
            raise Malformed("no SignedData")
        signed = info.inside(0xA0).inside()
        signed.integer()
        signed.whole(0x31)
        encapsulated = signed.inside()
        if encapsulated.oid() != "1.2.840.113549.1.9.16.1.4":
            raise Malformed("its content is not a TSTInfo")
        self.content = encapsulated.inside(0xA0).content(4)
        self.certificates = []
        if signed.peek() == 0xA0:
            inside = signed.inside(0xA0)
            while inside.more():
                tag, (_, whole) = inside.peek(), inside.whole()
                if tag == 0x30:
                    self.certificates.append(Certificate(whole))
        if signed.peek() == 0xA1:
            signed.whole()
        signers = signed.inside(0x31)
        signer = signers.inside()
        signers.end()
        signed.end()
        signer.integer()
        name = signer.inside()
        self.signer = name.whole(0x30)[1], name.content(2)
        self.digest = DIGESTS.get(signer.inside().oid())
        attributes, whole = signer.whole(0xA0)
        self.signed = b"\x31" + whole[1:]  # RFC 5652 section 5.4: signed as a SET OF
        self.attributes, attributes = {}, Der(attributes)
        while attributes.more():
            attribute = attributes.inside()
            name, values = attribute.oid(), attribute.inside(0x31)
            if name in self.attributes:
                raise Malformed("an attribute occurs twice")
            self.attributes[name] = values.whole()[1]
            values.end()
        self.algorithm = signer.inside().oid()
        self.signature = signer.content(4)
        outer = Der(self.content)
        info = outer.inside()
        outer.end()
        if info.integer() != 1:
            raise Malformed("unsupported version of TSTInfo")
        info.oid()
        imprint = info.inside()
        if DIGESTS.get(imprint.inside().oid()) != "sha256":
            raise Malformed("its imprint is not a SHA-256")
        self.imprint = imprint.content(4)
        info.integer()
        if info.peek() != 0x18:
            raise Malformed("it has no genTime")
        self.time = der_time(info)

    def named(self, certificate):
        """Returns True if the attributes name `certificate`, by its hash, as the one that signed
        (RFC 5816)."""
        if "1.2.840.113549.1.9.16.2.47" in self.attributes:
            first = Der(self.attributes["1.2.840.113549.1.9.16.2.47"]).inside().inside().inside()
            digest = DIGESTS.get(first.inside().oid()) if first.peek() == 0x30 else "sha256"
        elif "1.2.840.113549.1.9.16.2.12" in self.attributes:
            first, digest = Der(self.attributes["1.2.840.113549.1.9.16.2.12"]).inside().inside().inside(), "sha1"
        else:
            return False
        return digest is not None and first.content(4) == hashlib.new(digest, certificate.der).digest()

    def check(self, authorities):
        """Raises BadSignature if the token is not valid. If no authorities are given, the
        certificate chain is not checked."""
        certificate = next((c for c in self.certificates if (c.issuer, c.serial) == self.signer), None)
        if certificate is None:
            raise BadSignature("the certificate that signed it is not in it")
        if self.digest is None:
            raise BadSignature("unsupported digest")
        kind, hashed = self.attributes.get("1.2.840.113549.1.9.3"), self.attributes.get("1.2.840.113549.1.9.4")
        if kind is None or Der(kind).oid() != "1.2.840.113549.1.9.16.1.4" or hashed is None:
            raise BadSignature("its attributes are not those of its content")
        if Der(hashed).content(4) != hashlib.new(self.digest, self.content).digest():
            raise BadSignature("its attributes are not those of its content")
        if not self.named(certificate):
            raise BadSignature("its attributes do not name the certificate that signed it")
        if not certificate.verifies(self.algorithm, self.digest, self.signed, self.signature):
            raise BadSignature("the signature is not valid")
        if certificate.purposes() != [TIME_STAMPING] or not certificate.extensions["2.5.29.37"][0]:
            raise BadSignature("its certificate is not only for timestamps")
        if authorities:
            self.chain(certificate, authorities)

    def chain(self, certificate, authorities):
        """Checks the certificate chain as it was at the time of the timestamp, by RFC 5280 section
        6.1 without name constraints, policies and revocation. Raises BadSignature."""
        for _ in range(CHAIN_MAX):
            if not certificate.since <= self.time <= certificate.until:
                raise BadSignature("a certificate was not valid at the time")
            known = {"2.5.29.15", "2.5.29.19", "2.5.29.37"}
            if any(critical and name not in known for name, (critical, _) in certificate.extensions.items()):
                raise BadSignature("a certificate has an unsupported critical extension")

            def signed(issuer):
                return issuer.subject == certificate.issuer and issuer.verifies(certificate.algorithm, "sha256", certificate.signed, certificate.signature)

            if any(signed(authority) for authority in authorities):
                return
            above = [c for c in self.certificates if c.der != certificate.der and c.may_sign_others() and signed(c)]
            if not above:
                break
            certificate = above[0]
        raise BadSignature("its certificate does not chain to a given authority")


# Retention, holds and drops: the section of that name in proof.md.


def statement_lines(data, name, keys):
    """Returns (lines of the text, signer). A text with an empty line is a signed note; if several
    keys signed it, the signer is the key that comes last in `keys`. Any other text is unsigned, and
    the signer is None."""
    if b"\n\n" in data:
        note = Note(data)
        signers = note.signers(name, keys)
        if not signers:
            raise Malformed("no known key signed it")
        return note.lines, max(signers, key=keys.index)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Malformed("not UTF-8 at byte %d" % e.start)
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise Malformed("not a text of lines")
    return text[:-1].split("\n"), None


def record_time(text):
    """Parses a time like 2026-03-02T10:00:00Z. Returns a datetime without a time zone, in UTC."""
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text, re.ASCII):
            raise ValueError
        return datetime.datetime.fromisoformat(text[:-1])
    except ValueError:
        raise Malformed("a time is not like 2026-03-02T10:00:00Z")


def plain_line(text):
    if not text or text != text.strip() or len(text.encode("utf-8", "surrogatepass")) > LINE_BYTES_MAX:
        raise Malformed("a text is empty, too long, or has white space at an end")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in text):
        raise Malformed("a text has a control character")
    return text


def retention_end(at, years):
    """Returns the time that is `years` calendar years and one day after `at`. If `at` is on a 29th
    of February and the later year has no such day, the 1st of March is used instead, and the day is
    added to it."""
    try:
        try:
            later = at.replace(year=at.year + years)
        except ValueError:
            later = at.replace(year=at.year + years, month=3, day=1)
        return later + datetime.timedelta(days=1)
    except (ValueError, OverflowError):
        raise Malformed("its retention ends beyond the calendar")


class Keeping:
    """Checks retention records (`policies`), holds and drops. `records` is a list of (name, where,
    bytes) for the files of one folder, sorted by name. The bytes are None if the file could not be
    read; this has been reported already."""

    def __init__(self, root, report, keys, years, now):
        self.root, self.report, self.keys, self.now = root, report, keys, now
        self.made_with, self.promised, self.held, self.dropped, self.clock = years, [], {}, {}, []

    def fields(self, data, name):
        """Returns (value, signer). `value(name)` takes the next line, which must be `<name>
        <value>`, and returns its value; Malformed if the line has another name. With `optional`, it
        returns None instead and leaves the line. `value.end()` raises Malformed if lines are left.
        The signer is that of statement_lines."""
        lines, signer = statement_lines(data, "strongroom/%s/%s" % (self.report.archive_id, name), self.keys.all())
        lines = list(lines)

        def value(name, optional=False):
            if lines and lines[0].startswith(name + " "):
                return lines.pop(0)[len(name) + 1 :]
            if optional:
                return None
            raise Malformed("no line `%s` in its place" % name)

        def end():
            if lines:
                raise Malformed("more lines than such a record has")

        value.end = end
        return value, signer

    def archive(self, value):
        if value("archive") != self.report.archive_id:
            raise Malformed("it is of another archive")

    def policies(self, records):
        years = self.made_with
        for number, (name, where, data) in enumerate(records, 1):
            if data is None:
                return
            try:
                if name != "%08d" % number:
                    raise Malformed("the record that should be next is number %d" % number)
                value, signer = self.fields(data, "retention")
                if value("strongroom retention") != str(number):
                    raise Malformed("it is not number %d" % number)
                self.archive(value)
                at, more, _ = record_time(value("time")), parse_decimal(value("years")), plain_line(value("reason"))
                value.end()
                if signer is None and self.keys.records:
                    raise Malformed("the archive has a key, and the record is not signed")
                if not years < more <= YEARS_MAX:
                    raise Malformed("%d years, where more than %d and at most %d are possible" % (more, years, YEARS_MAX))
            except (Malformed, BadSignature) as e:
                self.report.finding("retention_record", shown(where), str(e))
                return
            years = more
            self.promised.append((at, more))
            self.report.count("retention_records")

    def years_at(self, at):
        return max([y for t, y in self.promised if t <= at], default=self.made_with)

    def holds(self, records):
        """Checks the records of holds. Fills in `held`: it maps (path, version) of an object to the
        name of a hold that includes the object and has not been released."""
        files, names, active, unsigned, number = {r[0]: r for r in records}, {}, {}, 0, 0
        signed = {}
        try:
            where = "_holds"
            while "%08d" % (number + 1) in files:
                number += 1
                _, where, data = files.pop("%08d" % number)
                if data is None:
                    return
                value, signer = self.fields(data, "holds")
                if value("strongroom hold") != str(number):
                    raise Malformed("it is not number %d" % number)
                self.archive(value)
                record_time(value("time"))
                name, placed = value("release", optional=True), False
                if name is None:
                    name, placed = value("place"), True
                    since, until = value("from", optional=True), value("to", optional=True)
                    for text in (since, until):
                        if text is not None:
                            record_time(text)
                    for text in (value("namespace", optional=True), value("user", optional=True)):
                        if text is not None:
                            plain_line(text)
                plain_line(name), plain_line(value("reason"))
                value.end()
                unsigned += signer is None
                if placed:
                    signed[name] = signer is not None
                if placed and name in names:
                    raise Malformed("a hold of that name was placed before")
                if not placed and name not in active:
                    raise Malformed("there is no such hold to release")
                if not placed and signed[name] and signer is None:
                    raise Malformed("the hold was placed with a signature, and its release has none")
                if not placed:
                    del active[name]
                    continue
                names[name] = active[name] = lists = []
                while "%08d-%08d" % (number, len(lists) + 1) in files:
                    _, where, data_of_list = files.pop("%08d-%08d" % (number, len(lists) + 1))
                    if data_of_list is None:
                        return
                    lists.append(self.held_list(data_of_list, data, number, len(lists) + 1))
            if files:
                where = "_holds"
                raise Malformed("not a record, or after a missing one: %s" % ", ".join(sorted(files)[:5]))
        except (Malformed, BadSignature) as e:
            self.report.finding("hold_record", shown(where), str(e))
        if unsigned and self.keys.records:
            self.report.skipped("who placed or released holds: %d of the records are not signed" % unsigned)
        for name, lists in active.items():
            for path, version in (p for paths in lists for p in paths):
                self.held[path, version] = name

    def held_list(self, data, hold, number, part):
        value, _ = self.fields(data, "holds")
        if value("strongroom held") != "%d %d" % (number, part):
            raise Malformed("it is not list %d of hold %d" % (part, number))
        self.archive(value)
        if parse_hash(value("hold")) != sha256(hold):
            raise Malformed("it names a record that is not the record of its hold")
        paths, line = [], value("object", optional=True)
        while line is not None:
            path, space, version = line.partition(" ")
            if not space or not version or " " in version or any(p in ("", ".", "..") for p in path.split("/")) or "\\" in path or "\0" in path:
                raise Malformed("not an object of an archive: %s" % shown(line))
            paths.append((path, None if version == "-" else version))
            line = value("object", optional=True)
        value.end()
        return paths

    def clock_records(self, records):
        """Checks the clock records. Fills in `clock` with those that count; whether they name the
        trees of their volumes is not checked here."""
        files, where, number = {r[0]: r for r in records}, "_clock", 0
        try:
            while number < CLOCK_RECORDS_MAX and "%08d" % (number + 1) in files:
                number += 1
                _, where, data = files.pop("%08d" % number)
                if data is None:
                    return
                self.clock.append(self.clock_record(number, data))
                self.report.count("clock_records")
            if files:
                where = "_clock"
                raise Malformed("not a record, or after a missing one: %s" % ", ".join(sorted(files)[:5]))
        except (Malformed, BadSignature) as e:
            self.report.finding("clock_record", shown(where), str(e))

    def clock_record(self, number, data):
        value, signer = self.fields(data, "clock")
        if value("strongroom clock") != str(number):
            raise Malformed("it is not number %d" % number)
        self.archive(value)
        at, commits = record_time(value("time")), value("commits").split(" ")
        if len(commits) != 3 or not VOLUME.fullmatch(commits[0]):
            raise Malformed("its commits are not a volume and two numbers")
        volume, first, last = commits[0], parse_decimal(commits[1]), parse_decimal(commits[2])
        if not first <= last < 1 << 63:
            raise Malformed("its commits end before they begin")
        root, made = parse_base64(value("root"), 32), value("made")
        if made == "unknown":
            since, until = None, at
        else:
            since, space, until = made.partition(" ")
            since, until = record_time(since), record_time(until)
            if not since <= until <= at or since.year < YEAR_MIN:
                raise Malformed("its times are not a period that ends before the record was made")
        reason = plain_line(value("reason"))
        value.end()
        if signer is None:
            raise Malformed("it is not signed")
        place = self.keys.all().index(signer)
        if place + 1 < len(self.keys.records) and last >= self.keys.records[place + 1].logs.get(volume, (0, None))[0]:
            raise Malformed("signed by a key that was retired before these commits")
        if at.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000 > self.now + CLOCK_BACK_MS_MAX:
            raise Malformed("its time is in the future")
        return {"number": number, "time": at, "volume": volume, "first": first, "last": last, "root": root, "from": since, "to": until, "reason": reason}

    def drops(self, records):
        """Checks the drop records. Fills in `dropped`: it maps the name of a dropped volume to
        (record, state), both parsed."""
        files = {r[0]: r for r in records}
        for name, where, data in records:
            stem = name[:-6] if name.endswith(".state") else name
            volume = stem.replace("-", "/", 1)
            if not VOLUME.fullmatch(volume):
                self.report.finding("drop_record", shown(where), "its name is not that of a volume")
            elif stem == name and data is not None:
                try:
                    self.dropped[volume] = self.drop(volume, data, files.get(name + ".state", (None, None, None))[2])
                    self.report.count("dropped")
                except (Malformed, BadSignature) as e:
                    self.report.finding("drop_record", where, str(e))

    def drop(self, volume, data, state):
        value, signer = self.fields(data, "dropped")
        if value("strongroom dropped") != volume:
            raise Malformed("it is not of %s" % volume)
        self.archive(value)
        record = {"time": value("time")}
        at = record_time(record["time"])
        record["size"], record["root"] = parse_decimal(value("size")), parse_base64(value("root"), 32)
        record["files"], record["rows"] = parse_decimal(value("files")), parse_decimal(value("rows"))
        last, years, until = record_time(value("last")), parse_decimal(value("years")), record_time(value("until"))
        digest, record["reason"] = parse_hash(value("state")), plain_line(value("reason"))
        value.end()
        if signer is None:
            raise Malformed("it is not signed")
        place = self.keys.all().index(signer)
        if place + 1 < len(self.keys.records) and volume in self.keys.records[place + 1].logs:
            raise Malformed("signed by a retired key, and the volume existed when that key was retired")
        for size, root in (r.logs[volume] for r in self.keys.records if volume in r.logs):
            if size > record["size"] or size == record["size"] and root != record["root"]:
                raise Malformed("a key record names another tree of the volume")
        if last.year < int(volume.partition("/")[2][:4]):
            raise Malformed("its last commit is from before its year began")
        if any(last < r["to"] for r in self.clock if r["volume"] == volume and r["time"] <= at):
            raise Malformed("its last commit is from before the time that a clock record gives")
        if years < self.years_at(at):
            raise Malformed("dropped after %d years, and %d were promised" % (years, self.years_at(at)))
        if years > 9999:
            raise Malformed("that many years are beyond the calendar")
        if until < retention_end(last, years) or at < until:
            raise Malformed("dropped at %s, before its retention was over" % record["time"])
        if at.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000 > self.now + CLOCK_BACK_MS_MAX:
            raise Malformed("it says that it was dropped at %s, which is in the future" % record["time"])
        if state is None:
            raise Malformed("the file of its positions is missing")
        if sha256(state) != digest:
            raise Malformed("the file of its positions is not the one that it names")
        state = parse_json(state)
        if not isinstance(state, dict) or set(state) != {"format", "txns", "offsets"} or state["format"] != "strongroom-dropped-1":
            raise Malformed("the file of its positions is not an object of `format` strongroom-dropped-1, `txns` and `offsets`")
        if not isinstance(state["txns"], dict) or not all(is_int(v, -(1 << 63)) for v in state["txns"].values()):
            raise Malformed("`txns` are not versions of appIds")
        offsets = state["offsets"]
        if offsets is not None and not (
            isinstance(offsets, dict) and all(isinstance(v, list) and len(v) == 3 and all(is_int(n) for n in v) and v[0] <= v[1] for v in offsets.values())
        ):
            raise Malformed("`offsets` is not an object of [first, last, rows]")
        return record, state


# The report, and the files of an archive.

# Every kind of finding that this program reports. docs/proof.md, *Kinds of findings*, says what each means.
FINDING_KINDS = (
    "manifest_malformed",
    "manifest_changed",
    "key_record",
    "key_mismatch",
    "key_untrusted",
    "key_retired",
    "commit_missing",
    "commit_malformed",
    "commit_changed",
    "commits_cut",
    "not_append_only",
    "clock_back",
    "wrong_year",
    "volume_reopened",
    "volume_missing",
    "checkpoint_malformed",
    "checkpoint_origin",
    "checkpoint_signature",
    "checkpoint_root",
    "tile_missing",
    "tile_changed",
    "unproven",
    "remembered_invalid",
    "rolled_back",
    "forked",
    "file_named_twice",
    "file_missing",
    "file_size",
    "file_unreadable",
    "file_changed",
    "file_unnamed",
    "tags",
    "rows",
    "record_changed",
    "statistics",
    "offsets",
    "columns_differ",
    "position_back",
    "overlap",
    "rows_missing",
    "rows_extra",
    "counts",
    "shadowed",
    "delete_marker",
    "lock_missing",
    "lock_mode",
    "retention_short",
    "retention_record",
    "hold_record",
    "hold_missing",
    "drop_record",
    "drop_unfinished",
    "clock_record",
    "delta_checkpoint",
    "witness_malformed",
    "witness_signature",
    "witness_missing",
    "timestamp_malformed",
    "timestamp_signature",
    "timestamp_imprint",
    "timestamp_missing",
    "pack_manifest",
    "pack_file_missing",
    "pack_file_changed",
    "pack_file_extra",
    "pack_proof",
    "pack_signature",
    "pack_order",
    "pack_records",
    "pack_archive_files",
    "pack_counts",
    "pack_question",
    "pack_complete",
    "proof_malformed",
    "path",
)


class Report:
    def __init__(self, location):
        self.location, self.archive_id, self.findings, self.not_checked = location, None, [], []
        self.checked, self.heads, self.total, self.format = defaultdict(int), [], 0, "strongroom-verify-1"

    def finding(self, kind, where, detail):
        assert kind in FINDING_KINDS, kind
        self.total += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append({"kind": kind, "where": where, "detail": detail})

    def skipped(self, text):
        if text not in self.not_checked:
            self.not_checked.append(text)

    def count(self, what, n=1):
        self.checked[what] += n

    def as_json(self):
        if self.total > len(self.findings):
            self.skipped("findings beyond %d are counted only: %d in all" % (FINDINGS_MAX, self.total))
        return {
            "format": self.format,
            "archive_id": self.archive_id,
            "location": self.location,
            "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "result": "findings" if self.findings else "ok",
            "findings": self.findings,
            "not_checked": self.not_checked,
            "checked": dict(self.checked),
            "heads": self.heads,
        }


class NotPlain(Exception):
    """A path leads to something other than a plain file (or folder). The text says to what."""


class Root:
    """Reads files below the archive's folder. No component of their paths below the folder may be a
    symbolic link, and only plain files are opened."""

    is_bucket = False

    def __init__(self, path):
        self.path = path
        if not os.path.isdir(path):
            raise CannotCheck("%s is not a folder: name the folder that holds strongroom.json" % path)

    def status(self, rel):
        """Returns lstat of the last component of a path; None if it does not exist."""
        path, status = self.path, None
        for part in rel.split("/"):
            path = os.path.join(path, part)
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as e:
                raise CannotCheck("cannot stat %s: %s" % (shown(path), e.strerror))
            if stat.S_ISLNK(status.st_mode):
                raise NotPlain("%s is a symbolic link" % shown(os.path.relpath(path, self.path)))
        return status

    def names(self, rel):
        """Names in a folder, sorted; empty if there is no folder."""
        status = self.status(rel)
        if status is None:
            return []
        if not stat.S_ISDIR(status.st_mode):
            raise NotPlain("not a folder")
        try:
            return sorted(os.listdir(os.path.join(self.path, rel)))
        except OSError as e:
            raise CannotCheck("cannot list %s: %s" % (shown(rel), e.strerror))

    def open(self, rel, _version=None, _size=None):
        """A plain file, open for reading; None if it does not exist."""
        status = self.status(rel)
        if status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise NotPlain("not a plain file")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            return os.fdopen(os.open(os.path.join(self.path, rel), flags), "rb")
        except OSError as e:
            raise Unreadable("cannot open %s: %s" % (shown(rel), e.strerror))

    def read(self, rel, limit):
        """All bytes; None if it does not exist; Malformed if there are more than the limit."""
        file = self.open(rel)
        if file is None:
            return None
        with file:
            try:
                data = file.read(limit + 1)
            except OSError as e:
                raise Unreadable("cannot read %s: %s" % (shown(rel), e.strerror))
        if len(data) > limit:
            raise Malformed("larger than %d bytes" % limit)
        return data

    def close(self):
        pass


class Refused(Exception):
    """A store understood a request and refused it. `status` is the HTTP status, and `code` is the
    store's own error code."""

    def __init__(self, status, code, detail):
        super().__init__("%d %s%s" % (status, shown(code), detail and ": " + shown(detail)))
        self.status, self.code = status, code


class Version:
    """A version of an object, or a delete marker. `modified` is in UTC."""

    def __init__(self, element, is_marker):
        self.id, self.is_marker, self.modified = element.findtext("VersionId"), is_marker, store_time(element.findtext("LastModified"))
        if self.modified is None or self.id is not None and not VERSION_ID.fullmatch(self.id):
            raise CannotCheck("the store lists an object without a time, or with an invalid version")


class Bucket:
    """Reads objects below s3://bucket/prefix as Root reads files below a folder. It sends requests
    of the S3 interface, signed with AWS Signature Version 4, and never writes.

    An object whose version no commit names is read at its newest version, as any reader would read
    it. Point 13 checks that the object has only one version."""

    is_bucket = True

    def __init__(self, location, endpoint=None, environment=os.environ):
        match = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,63})(?:/+([A-Za-z0-9/_.=+ -]*))?", location, re.ASCII)
        self.bucket, self.prefix = match.groups() if match else ("", "")
        self.prefix = (self.prefix or "").strip("/")
        if not match or any(part in ("", ".", "..") for part in self.prefix.split("/")) and self.prefix:
            raise CannotCheck("%s is not the location of an archive: s3://BUCKET/PREFIX" % shown(location))
        self.key, self.secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if not self.key or not self.secret:
            raise CannotCheck("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if there is one)")
        self.token = environment.get("AWS_SESSION_TOKEN")
        self.region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        if not all(re.fullmatch("[!-~]+", text) for text in (self.key, self.secret, self.token or "-")) or not re.fullmatch("[a-z0-9-]+", self.region):
            raise CannotCheck("the credentials or the region have invalid characters")
        endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        self.start = "/" + self.bucket
        # The store's wildcard certificate is not valid for a host name with further dots. So if the
        # name of the bucket has dots, it goes into the path instead of the host name.
        if not endpoint and "." not in self.bucket:
            endpoint, self.start = "https://%s.s3.%s.amazonaws.com" % (self.bucket, self.region), ""
        elif not endpoint:
            endpoint = "https://s3.%s.amazonaws.com" % self.region
        try:
            url = urllib.parse.urlsplit(endpoint)
            self.host, self.port = url.hostname, url.port
        except ValueError:
            self.host = None
        plain = self.host and re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f.]*:[0-9a-f:.]+", self.host)
        if not plain or url.scheme not in ("http", "https") or url.path.strip("/") or url.query:
            raise CannotCheck("%s is not an endpoint: https://HOST[:PORT]" % shown(endpoint))
        self.is_tls, self.host_line, self.idle = url.scheme == "https", url.netloc.rpartition("@")[2], []
        if not self.is_tls and not is_loopback(self.host):
            raise CannotCheck("%s: without TLS anyone between here and the store can answer for it; that is allowed only for a loopback address" % shown(endpoint))

    def name(self, rel):
        """Key of the object."""
        return "/".join(part for part in (self.prefix, rel) if part not in ("", "."))

    def folder(self, rel):
        key = self.name(rel)
        return key and key + "/"

    def signed(self, path, query, now):
        """Headers of a GET: AWS, "Authenticating Requests: Using the Authorization Header"."""
        day, at, empty = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256().hexdigest()
        headers = {"host": self.host_line, "x-amz-content-sha256": empty, "x-amz-date": at}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names, scope = ";".join(sorted(headers)), "%s/%s/s3/aws4_request" % (day, self.region)
        lines = ["GET", path, query] + ["%s:%s" % (name, headers[name]) for name in sorted(headers)] + ["", names, empty]
        text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (at, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest())
        key = b"AWS4" + self.secret.encode()
        for part in (day, self.region, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (self.key, scope, names, key.hex())
        return headers

    def ask(self, key, query, take):
        """Sends a GET, calls `take` with the answer, and returns what `take` returns. `take` must
        read the answer to its end. Raises Refused if the store refuses the request. Raises
        CannotCheck if several attempts get no complete answer, or if the error does not depend on
        the object (NO_ANSWERS)."""
        path = self.start + "/" + urllib.parse.quote(key, safe="/-_.~")
        query = "&".join(sorted("%s=%s" % tuple(urllib.parse.quote(text, safe="-_.~") for text in pair) for pair in query.items()))
        for tried in range(1, ASK_TRIES + 1):
            whole = False
            try:
                connection = self.idle.pop()
            except IndexError:
                if self.is_tls:
                    connection = http.client.HTTPSConnection(self.host, self.port, timeout=ASK_TIMEOUT_S, context=ssl.create_default_context())
                else:
                    connection = http.client.HTTPConnection(self.host, self.port, timeout=ASK_TIMEOUT_S)
            try:
                connection.request("GET", path + (query and "?" + query), headers=self.signed(path, query, datetime.datetime.now(datetime.timezone.utc)))
                answer = connection.getresponse()
                if answer.status == 200:
                    taken = take(answer)
                    whole = answer.isclosed() and not answer.length  # http.client itself does not report a body that ends too early
                    if not whole:
                        raise http.client.HTTPException("the answer ends too early")
                    return taken
                refusal = self.refusal(answer)
                whole = answer.isclosed()
                if answer.status != 429 and answer.status < 500:
                    raise refusal
                problem = refusal
            except (OSError, http.client.HTTPException) as e:
                problem = e
            finally:
                if whole:
                    self.idle.append(connection)
                else:
                    connection.close()
            time.sleep(ASK_PAUSE_S * 2**tried if tried < ASK_TRIES else 0)
        raise CannotCheck("the store at %s gives no answer for %s: %s" % (self.host_line, shown(key or self.bucket), shown(problem)))

    @staticmethod
    def refusal(answer):
        code = detail = ""
        try:
            document = parse_xml(body_of(answer, BLOCK_BYTES), "Error")
            code, detail = document.findtext("Code") or "", document.findtext("Message") or ""
        except CannotCheck:
            pass
        if code in NO_ANSWERS or answer.status == 401:
            raise CannotCheck("the store does not answer: %s" % Refused(answer.status, code, detail))
        return Refused(answer.status, code or http.client.responses.get(answer.status, ""), detail)

    def document(self, key, query, name):
        def take(answer):
            data = body_of(answer, ANSWER_BYTES_MAX)
            if len(data) > ANSWER_BYTES_MAX:
                raise CannotCheck("the store gives a list of more than %d bytes" % ANSWER_BYTES_MAX)
            return data

        return parse_xml(self.ask(key, query, take), name)

    def object(self, rel, version, take):
        """Calls `take` with the answer that has the object's bytes, and returns what `take`
        returns. Returns None if the object or the version does not exist."""
        try:
            return self.ask(self.name(rel), {} if version is None else {"versionId": version}, take)
        except Refused as e:
            # 405: it is a delete marker. 400: no version can have such an id.
            if e.status in (404, 405) or e.status == 400 and version is not None and e.code in ("InvalidArgument", "NoSuchVersion"):
                return None
            raise Unreadable("cannot read %s: %s" % (shown(rel), e))

    def names(self, rel):
        """Names in a folder, sorted."""
        prefix, names, more = self.folder(rel), set(), {}
        while True:
            query = {"list-type": "2", "delimiter": "/", "prefix": prefix, "encoding-type": "url"}
            try:
                page = self.document("", dict(query, **more), "ListBucketResult")
            except Refused as e:
                raise CannotCheck("cannot list %s: %s" % (shown(prefix), e))
            decode = decoder(page)
            keys = [e.findtext("Key") for e in page.findall("Contents")] + [e.findtext("Prefix") for e in page.findall("CommonPrefixes")]
            names.update(decode(key)[len(prefix) :].strip("/") for key in keys if key)
            more = self.next_page(page, more, {"continuation-token": page.findtext("NextContinuationToken")})
            if not more:
                return sorted(names - {""})

    @staticmethod
    def next_page(page, before, more):
        """Returns the query parameters that ask for the next page of a list; an empty dict after
        the last page."""
        if page.findtext("IsTruncated") != "true":
            return {}
        more = {name: text for name, text in more.items() if text}
        if not more or more == before:
            raise CannotCheck("the store cuts a list and does not say where it continues")
        return more

    def read(self, rel, limit):
        def take(answer):
            data = body_of(answer, limit)
            if len(data) > limit:
                raise Malformed("larger than %d bytes" % limit)
            return data

        return self.object(rel, None, take)

    def open(self, rel, version=None, size=None):
        """A copy of the version's bytes, in a file without a name. Malformed if their size is not `size`."""

        def take(answer):
            length, most, copied = answer.length, PROOF_BYTES_MAX if size is None else size, 0
            if size is not None and length is not None and length != size:
                raise Malformed("%d bytes, and the commit says %d" % (length, size))
            file = tempfile.TemporaryFile()
            for block in iter(lambda: answer.read(BLOCK_BYTES), b""):
                copied += len(block)
                if copied > most:
                    raise Malformed("more than %d bytes" % most)
                file.write(block)
            file.seek(0)
            return file

        return self.object(rel, version, take)

    def versions(self):
        """Returns a dict from path to a list of Version, for everything below the prefix. Delete
        markers are in the list, too."""
        prefix, found, more = self.folder(""), defaultdict(list), {}
        while True:
            page = self.document("", dict({"versions": "", "prefix": prefix, "encoding-type": "url"}, **more), "ListVersionsResult")
            decode = decoder(page)
            for kind, is_marker in (("Version", False), ("DeleteMarker", True)):
                for element in page.findall(kind):
                    key = decode(element.findtext("Key") or "")
                    if key.startswith(prefix):
                        found[key[len(prefix) :]].append(Version(element, is_marker))
            marker = page.findtext("NextKeyMarker")
            more = self.next_page(page, more, {"key-marker": marker and decode(marker), "version-id-marker": page.findtext("NextVersionIdMarker")})
            if not more:
                return found
            if "key-marker" not in more:
                raise CannotCheck("the store cuts a list and does not say where it continues")

    def setting(self, what, rel, version):
        """Returns the store's answer about a version's `retention` or `legal-hold`, whichever
        `what` is; None if it is not set."""
        try:
            return self.document(self.name(rel), dict({what: ""}, **({"versionId": version} if version else {})), {"retention": "Retention"}.get(what, "LegalHold"))
        except Refused as e:
            if e.status == 404:
                return None
            raise

    def each(self, work, ask):
        """Calls `ask` for each item of `work`, for several at once. Yields (item, answer) in the
        order of the items; if the store refused, the answer is the Refused."""

        def one(item):
            try:
                return item, ask(item)
            except Refused as e:
                return item, e

        with concurrent.futures.ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            yield from pool.map(one, work)

    def close(self):
        while self.idle:
            self.idle.pop().close()


def store_time(text):
    """A time as stores write it, in UTC; None if it is not a time."""
    match = STORE_TIME.fullmatch(text or "")
    try:
        return match and datetime.datetime.fromisoformat(match[1]).replace(microsecond=int((match[2] or ".0")[1:7].ljust(6, "0")))
    except ValueError:
        return None


def body_of(answer, limit):
    """Reads an answer and returns its bytes. An answer of more than `limit` bytes is not read to
    its end; what is returned is then longer than `limit`. Reads in blocks, because http.client
    allocates as much memory as it is asked to read."""
    blocks, length = [], 0
    while length <= limit:
        block = answer.read(BLOCK_BYTES)
        if not block:
            break
        blocks.append(block)
        length += len(block)
    return b"".join(blocks)


def is_loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_xml(data, name):
    """Returns the root element of an XML answer of the store, with the namespaces removed. The root
    must be called `name`."""
    try:
        document = xml.etree.ElementTree.fromstring(data)
    except (xml.etree.ElementTree.ParseError, ValueError, LookupError) as e:
        raise CannotCheck("the store's answer is not XML: %s" % shown(e))
    for element in document.iter():
        element.tag = element.tag.rpartition("}")[2]
    if document.tag != name:
        raise CannotCheck("the store answers with %s instead of %s" % (shown(document.tag), name))
    return document


def decoder(page):
    """Returns the function that decodes the keys on a page of a list."""
    return urllib.parse.unquote_plus if page.findtext("EncodingType") == "url" else str


class Progress:
    """Shows the progress in one line on stderr, if that is a terminal."""

    def __init__(self):
        self.on, self.width = sys.stderr.isatty(), 0

    def show(self, text):
        if self.on:
            sys.stderr.write("\r%s\r%s" % (" " * self.width, text))
            sys.stderr.flush()
            self.width = len(text)


# An archive.


class Add:
    """An `add` action and the values of its tags. A value is None if the tag is missing or
    malformed, which is a finding."""

    def __init__(self, path, size, date, stats, tags):
        self.path, self.size, self.date, self.stats, self.tags = path, size, date, stats, tags
        self.sha256, self.record_root, self.rows, self.offsets = None, None, None, None
        version = tags.get("version_id") if isinstance(tags, dict) else None
        self.version = version if isinstance(version, str) and version else None  # the object's version, in a bucket


class Commit:
    was_dropped = False

    def __init__(self, where):
        self.where, self.timestamp, self.strongroom, self.adds, self.txns, self.foreign, self.setup, self.table = where, None, None, [], {}, [], [], {}


class Volume:
    def __init__(self, table, period):
        self.table, self.period, self.name = table, period, "%s/%s" % (table, period)
        self.commits, self.leaves, self.files, self.notes = [], [], [], []
        self.valid = []  # (checkpoint, key) of each valid checkpoint: `key` signed it, and the commits give its root
        self.named, self.root_differs, self.others = set(), False, []
        self.excuses = []  # the clock records that are about commits of this volume, in their order
        self.cosigned, self.stamped = [], []  # like `notes`, but from _tlog/witness and _tlog/timestamp


class Archive:
    """The check of an archive: one method for each point of "Checking an archive", in their
    order."""

    def __init__(self, path, trusted, remembered=(), since=None, rows=True, now=None, witnesses=(), quorum=None, authorities=(), endpoint=None):
        self.authorities = authorities
        self.witnesses, self.quorum = list(witnesses), len(witnesses) if quorum is None else quorum
        self.root = Bucket(path, endpoint) if path.startswith("s3://") else Root(path)
        self.trusted, self.remembered, self.since, self.with_rows = trusted, remembered, since, rows
        self.report, self.progress, self.volumes, self.keys = Report(path), Progress(), [], Keys()
        self.years, self.dropped, self.held = YEARS_DEFAULT, {}, {}
        self.clock, self.floors = [], {}  # clock records, and the years of volumes that they give
        self.events, self.newer = {version: Events(version) for version in (1, 2)}, 0
        self.now = int(time.time() * 1000) if now is None else now
        self.strangers = 0

    def check(self):
        try:
            self.points()
        finally:
            self.root.close()
        self.progress.show("")
        return self.report

    def points(self):
        if self.root.is_bucket:
            self.find_volumes()
        if not self.point_1_manifest_and_keys():
            self.report.skipped("everything else: without strongroom.json nothing says which archive this is")
            return
        if not self.root.is_bucket:
            self.find_volumes()
        self.point_14_keeping()
        for volume in self.volumes:
            self.point_2_commits(volume)
        for volume in self.volumes:
            self.point_3_checkpoints(volume)
            self.point_4_tiles(volume)
            self.witnessed(volume)
            self.stamps(volume)
            self.head(volume)
        self.log_lines()
        self.named_volumes()
        self.point_5_remembered()
        self.clock_records()
        for volume in self.volumes:
            self.point_6_actions(volume)
        for volume in self.volumes:
            self.point_7_files(volume)
            self.point_15_delta_checkpoints(volume)
        if self.newer:
            self.report.skipped("whether columns match their records in %d files of events, whose format is newer than %d" % (self.newer, EVENTS_FORMAT))
        self.point_9_and_10_positions()
        self.point_11_other_tables()
        if self.root.is_bucket:
            self.point_13_bucket()
        else:
            self.point_12_unnamed()
            self.point_14_left_and_held()

    def find_volumes(self):
        """Finds the volumes. Also lists the data files and reads the checkpoints, *before* the
        commits are read. A running writer may add files, checkpoints and commits during the check.
        In this order, each file and checkpoint that was listed has its commits among those that are
        read later."""
        known = TABLES + ("strongroom.json", "_keys", "_probe" if self.root.is_bucket else ".lock") + RECORDS
        unknown = [n for n in self.names(".", "manifest_malformed") if n not in known]
        for table in TABLES:
            for period in self.names(table, "commit_missing"):
                if not VOLUME.fullmatch("%s/%s" % (table, period)):
                    unknown.append("%s/%s" % (table, period))
                    continue
                volume = Volume(table, period)
                self.volumes.append(volume)
                for name in self.names(volume.name, "commit_missing"):
                    where = "%s/%s" % (volume.name, name)
                    if name.startswith("date=") and self.root.is_bucket:
                        continue  # point 13 lists them
                    elif name.startswith("date="):
                        volume.files += ["%s/%s" % (name, file) for file in self.names(where, "file_unnamed")]
                    elif name not in ("_delta_log", "_tlog", "_staging"):
                        unknown.append(where)
                for folder, kept, kind in (
                    ("checkpoint", volume.notes, "checkpoint_malformed"),
                    ("witness", volume.cosigned, "checkpoint_malformed"),
                    ("timestamp", volume.stamped, "timestamp_malformed"),
                ):
                    for name in self.names("%s/_tlog/%s" % (volume.name, folder), kind):
                        where = "%s/_tlog/%s/%s" % (volume.name, folder, name)
                        try:
                            kept.append((name, where, self.root.read(where, NOTE_BYTES_MAX) or b""))
                        except (Malformed, NotPlain) as e:
                            self.report.finding(kind, shown(where), str(e))
        if not self.root.is_bucket:  # point 13 lists everything
            for name in unknown:
                if name.split("/")[0] in TABLES:
                    self.stranger(name)
        if unknown:
            more = "" if len(unknown) <= 10 else ", and %d more" % (len(unknown) - 10)
            self.report.skipped("files that are not part of an archive: %s%s" % (", ".join(shown(u) for u in unknown[:10]), more))

    def stranger(self, rel):
        """Reports Parquet files at places where an archive has none. Links are not followed."""
        self.strangers += 1
        if self.strangers == STRANGERS_MAX:
            self.report.skipped("%s: there are too many files that are not the archive's" % shown(rel))
        if self.strangers >= STRANGERS_MAX:
            return
        path = os.path.join(self.root.path, rel)
        if os.path.isdir(path) and not os.path.islink(path):
            for name in sorted(os.listdir(path)):
                self.stranger("%s/%s" % (rel, name))
        elif rel.lower().endswith(".parquet"):
            self.report.finding("file_unnamed", shown(rel), STRANGER)

    def names(self, rel, kind):
        try:
            return self.root.names(rel)
        except NotPlain as e:
            self.report.finding(kind, shown(rel), str(e))
            return []

    def point_1_manifest_and_keys(self):
        manifest, archive_id, public_key = b"", None, None
        try:
            manifest = self.root.read("strongroom.json", NOTE_BYTES_MAX)
            if manifest is None:
                manifest = b""
                raise Malformed("it is missing: not an archive, or its manifest was removed")
            value = parse_json(manifest)
            if not isinstance(value, dict) or not is_int(value.get("format")) or value["format"] != 1:
                raise Malformed("not an object with `format` 1")
            if not isinstance(value.get("archive_id"), str) or not UUID.fullmatch(value["archive_id"]):
                raise Malformed("`archive_id` is not a UUID in lower case")
            if not isinstance(value.get("created"), str) or not isinstance(value.get("public_key"), (str, type(None))):
                raise Malformed("`created` or `public_key` is not a string")
            years, mode = value.get("retention_years"), value.get("lock_mode")
            if years is not None and not (is_int(years) and years < 1 << 32) or mode not in (None, "COMPLIANCE", "GOVERNANCE"):
                raise Malformed("`retention_years` or `lock_mode` is not valid")
            archive_id = value["archive_id"]
            if years is not None:
                self.years = min(years, YEARS_MAX)
            if value.get("public_key") is not None:
                try:
                    public_key = parse_public_key(value["public_key"])
                except Malformed:
                    public_key = b""  # no key is that
        except (Malformed, NotPlain) as e:
            self.report.finding("manifest_malformed", "strongroom.json", str(e))
            if manifest or not self.root.is_bucket:  # what a delete marker hides is known in a bucket
                return False

        names, files = [n for n in self.names("_keys", "key_record") if n[0] != "."], []
        for name in names:
            where = "_keys/" + name
            if name != "%08d" % (len(files) + 1):
                expected = "_keys/%08d" % (len(files) + 1)
                self.report.finding("key_record", shown(where), "the record that should be next is %s" % expected)
                break
            try:
                files.append((where, self.root.read(where, NOTE_BYTES_MAX) or b""))
            except (Malformed, NotPlain) as e:
                self.report.finding("key_record", where, str(e))
                break
        if public_key is not None and not names:
            self.report.finding("key_record", "_keys/00000001", "missing, although strongroom.json names a public key")
        if not names:
            self.report.skipped("signatures: the archive has no key records")
        self.keys = check_keys(files, manifest, public_key, archive_id, self.trusted, self.report)
        return True

    def point_14_keeping(self):
        """proof.md, Retention, holds and drops. Removes from self.volumes those that a valid record
        says were dropped."""
        keeping = Keeping(self.root, self.report, self.keys, self.years, self.now)
        keeping.policies([self.statement("_retention", name, "retention_record") for name in self.names("_retention", "retention_record") if name[0] != "."])
        keeping.holds([self.statement("_holds", name, "hold_record") for name in self.names("_holds", "hold_record") if name[0] != "."])
        keeping.clock_records([self.statement("_clock", name, "clock_record") for name in self.names("_clock", "clock_record") if name[0] != "."])
        keeping.drops([self.statement("_dropped", name, "drop_record") for name in self.names("_dropped", "drop_record") if name[0] != "."])
        self.dropped, self.clock = keeping.dropped, keeping.clock
        for name, (record, _) in sorted(self.dropped.items()):
            self.report.skipped(
                "%s: it was dropped at %s, with %d files and %d rows (%s)" % (name, record["time"], record["files"], record["rows"], shown(record["reason"]))
            )
        self.volumes = [v for v in self.volumes if v.name not in self.dropped]
        self.years, self.held = max([self.years] + [years for _, years in keeping.promised]), keeping.held

    def point_14_left_and_held(self):
        """Point 14 on a disk: nothing remains of the dropped volumes, and every object under a hold
        exists."""
        for name in sorted(self.dropped):
            try:
                left = self.root.status(name)
            except NotPlain:
                left = True
            if left is not None:
                self.report.finding("drop_unfinished", name, "it was dropped, and some of it still exists")
        for (path, _), hold in sorted(self.held.items(), key=str):
            try:
                status = self.root.status(path)
            except NotPlain:
                status = None
            if status is None or not stat.S_ISREG(status.st_mode):
                self.report.finding("hold_missing", shown(path), "it is under hold %s, but it is missing" % shown(hold))

    def point_13_bucket(self):
        """Point 13, the versions, delete markers and locks of every object in a bucket. Also point
        14 in a bucket: nothing remains of the dropped volumes, and the store has a legal hold on
        every object under a hold."""
        try:
            listed = self.root.versions()
        except Refused as e:
            self.report.skipped("versions and locks of objects (point 13): they cannot be listed: %s" % e)
            return
        named = {"%s/%s" % (v.name, add.path): add.version for v in self.volumes for c in v.commits for add in c.adds}
        unnamed, left, locked = 0, defaultdict(int), []
        for path, versions in sorted(listed.items()):
            volume = "/".join(path.split("/")[:2])
            if path.startswith("_probe/"):
                continue
            if volume in self.dropped:
                left[volume] += len(versions)
                continue
            if "/date=" in path and path not in named:
                unnamed += 1
                continue
            if path.lower().endswith(".parquet") and "/_delta_log/" not in path and "/date=" not in path:
                self.report.finding("file_unnamed", shown(path), STRANGER)
            self.report.count("objects")
            objects = [v for v in versions if not v.is_marker]
            if len(objects) < len(versions):
                self.report.finding("delete_marker", shown(path), "%d delete markers hide it" % (len(versions) - len(objects)))
            if len(objects) > 1:
                self.report.finding("shadowed", shown(path), "it has %d versions instead of one" % len(objects))
            if named.get(path) is not None:
                chosen = next((v for v in objects if v.id == named[path]), None)
            else:
                # The oldest version is the one that the writer wrote. S3 lists newer versions
                # first, so among versions with the same time, the version that is listed last is
                # the oldest.
                chosen = min(reversed(objects), key=lambda v: v.modified, default=None)
            if chosen is None:
                self.report.finding("file_missing", shown(path), "the version that was written is missing")
            else:
                locked.append((path, chosen))
        told = {f["where"] for f in self.report.findings}
        for path in sorted(set(named) - set(listed)):
            if path not in told:
                self.report.finding("file_missing", path, "a commit names it, and it is missing")
        for volume, count in sorted(left.items()):
            self.report.finding("drop_unfinished", volume, "it was dropped, and %d versions of its objects still exist" % count)
        if unnamed:
            self.report.skipped("%d objects that no commit names: killed runs leave such objects" % unnamed)
        self.locks(locked)
        self.legal_holds()

    def locks(self, locked):
        """Checks that the lock of each object has the mode COMPLIANCE, and lasts for the promised
        years after the object was put."""
        unknown = 0
        for (path, version), answer in self.root.each(locked, lambda item: self.root.setting("retention", item[0], item[1].id)):
            self.progress.show("locks: %d of %d" % (self.report.checked["locks"] + unknown + 1, len(locked)))
            if isinstance(answer, Refused):
                unknown += 1
                continue
            mode, text = (answer.findtext("Mode"), answer.findtext("RetainUntilDate")) if answer is not None else (None, None)
            until = store_time(text)
            if text and until is None:
                unknown += 1
                continue
            self.report.count("locks")
            if answer is not None and mode != "COMPLIANCE":
                self.report.finding("lock_mode", shown(path), "its mode is %s, not COMPLIANCE" % shown(mode))
            if until is None:
                self.report.finding("lock_missing", shown(path), "nothing locks it" if answer is None else "its lock has no end")
                continue
            # A writer locks an object for one day more than promised, in case its clock differs
            # from the store's. So retention_end adds a day, which is not required here.
            try:
                is_short = until < retention_end(version.modified, self.years) - datetime.timedelta(days=1)
            except Malformed:
                is_short = True
            if is_short:
                detail = "it is locked until %sZ, and %d years are promised from %sZ on"
                self.report.finding("retention_short", shown(path), detail % (until.isoformat(), self.years, version.modified.isoformat()))
        if unknown:
            self.report.skipped("locks of %d objects (point 13): the store did not give them" % unknown)

    def legal_holds(self):
        unknown, held = 0, sorted(self.held.items(), key=str)
        for ((path, _), hold), answer in self.root.each(held, lambda item: self.root.setting("legal-hold", *item[0])):
            if isinstance(answer, Refused):
                unknown += 1
            elif answer is None or answer.findtext("Status") != "ON":
                self.report.finding("hold_missing", shown(path), "it is under hold %s, but the store does not hold it" % shown(hold))
        if unknown:
            self.report.skipped("legal holds of %d objects: the store did not give them" % unknown)

    def statement(self, folder, name, kind):
        where = "%s/%s" % (folder, name)
        try:
            return name, where, self.root.read(where, NOTE_BYTES_MAX if folder != "_dropped" or not name.endswith(".state") else COMMIT_BYTES_MAX) or b""
        except (Malformed, NotPlain) as e:
            self.report.finding(kind, shown(where), str(e))
            return name, where, None

    def point_2_commits(self, volume):
        log = volume.name + "/_delta_log"
        names = self.names(log, "commit_missing")
        there = [n for n in names if re.fullmatch(r"[0-9]{20}\.json", n)]
        volume.others = [n for n in names if n not in there]
        for i, name in enumerate(there):
            if name != "%020d.json" % i:
                self.report.finding("commit_missing", "%s/%020d.json" % (log, i), "missing, although later commits exist; the commits after it are not checked")
                break
            where = "%s/%s" % (log, name)
            commit = Commit(where)
            try:
                data = self.root.read(where, COMMIT_BYTES_MAX)
                if data is None:
                    raise NotPlain("it disappeared")
            except (Malformed, NotPlain) as e:
                self.report.finding("commit_missing" if isinstance(e, NotPlain) else "commit_malformed", where, "%s; the commits after it are not checked" % e)
                break
            volume.leaves.append(leaf_hash(data))
            volume.commits.append(commit)
            self.report.count("commits")
            self.progress.show("%s: %d commits" % (volume.name, i + 1))
            lines = data.split(b"\n")
            for number, line in enumerate(lines, 1):
                if line:  # an empty line means nothing
                    try:
                        self.action(commit, parse_json(line))
                    except Malformed as e:
                        self.report.finding("commit_malformed", where, "line %d: %s" % (number, e))
            if commit.timestamp is None:
                self.report.finding("commit_malformed", where, "no `commitInfo` with a `timestamp`")

    @staticmethod
    def action(commit, value):
        """Takes from one line of a commit the fields that the later points need."""
        if not isinstance(value, dict) or len(value) != 1:
            raise Malformed("not an object of one action")
        (kind, body), = value.items()
        if not isinstance(body, dict):
            raise Malformed("`%s` is not an object" % shown(kind))
        if kind == "commitInfo":
            if commit.timestamp is not None or not is_int(body.get("timestamp")) or body["timestamp"] >= TIMESTAMP_MS_END:
                raise Malformed("`commitInfo` occurs twice, or its `timestamp` is not a time")
            commit.timestamp, commit.strongroom = body["timestamp"], body.get("strongroom")
        elif kind == "txn":
            if not isinstance(body.get("appId"), str) or not is_int(body.get("version"), -(1 << 63)) or body["version"] >= 1 << 63 or body["appId"] in commit.txns:
                raise Malformed("`txn` without `appId` or `version`, or one `appId` twice")
            commit.txns[body["appId"]] = body["version"]
        elif kind == "add":
            path, values = body.get("path"), body.get("partitionValues")
            match = PATH.fullmatch(path) if isinstance(path, str) else None
            if not match:
                raise Malformed("`path` of an `add` is not date=YYYY-MM-DD/<32 hex>.parquet: %s" % shown(path))
            try:
                datetime.date.fromisoformat(match[1])
            except ValueError:
                raise Malformed("`path` of an `add` does not have a valid day: %s" % path)
            if not is_int(body.get("size")):
                raise Malformed("`size` of an `add` is not a length")
            strange = sorted(m for m in set(body) - ADD_MEMBERS if body[m] is not None)
            if strange:
                raise Malformed("an `add` has `%s`, which no file of an archive has" % shown(strange[0]))
            date, tags = values.get("date") if isinstance(values, dict) else None, body.get("tags")
            version = tags.get("version_id") if isinstance(tags, dict) else None
            if isinstance(version, str) and not VERSION_ID.fullmatch(version):
                raise Malformed("`version_id` of an `add` is not valid")
            commit.adds.append(Add(path, body["size"], date, body.get("stats"), body.get("tags")))
        elif kind in ("protocol", "metaData"):
            if kind in commit.table:
                raise Malformed("`%s` occurs twice" % kind)
            commit.setup.append(kind)
            commit.table[kind] = body
        else:
            commit.foreign.append(kind)

    def point_3_checkpoints(self, volume):
        origin, roots = "strongroom/%s/%s" % (self.report.archive_id, volume.name), {}
        good = []
        for name, where, data in volume.notes:
            if data is None:
                continue
            self.report.count("checkpoints")
            try:
                checkpoint = Checkpoint(data)
            except Malformed as e:
                self.report.finding("checkpoint_malformed", shown(where), str(e))
                continue
            if checkpoint.origin != origin:
                self.report.finding("checkpoint_origin", shown(where), "its origin is %s, not %s" % (shown(checkpoint.origin), origin))
                continue
            ids = {i.hex() for n, i, _ in checkpoint.note.signatures if n == origin}
            if name[:21] != "%020d-" % checkpoint.size or name[21:] not in ids:
                self.report.finding("checkpoint_malformed", shown(where), "its name is not its size and the id of a key in it")
                continue
            try:
                signers = [k for k in checkpoint.note.signers(origin, self.keys.all()) if key_id(origin, k).hex() == name[21:]]
                if not signers:
                    raise BadSignature("no known key signed it")
            except BadSignature as e:
                self.report.finding("checkpoint_signature", where, str(e))
                continue
            self.progress.show("%s: checkpoint %d" % (volume.name, checkpoint.size))
            if checkpoint.size > len(volume.leaves):
                self.report.finding("commits_cut", where, "it proves %d commits, and %d exist" % (checkpoint.size, len(volume.leaves)))
                continue
            good.append((checkpoint, signers[0], where))
            roots[checkpoint.size] = None

        self.roots(volume, roots)
        differing = []
        for checkpoint, key, where in good:
            if roots[checkpoint.size] == checkpoint.root:
                volume.valid.append((checkpoint, key))
            else:
                self.report.finding("checkpoint_root", where, "the first %d commits do not give its root" % checkpoint.size)
                differing.append(checkpoint)
        if differing:
            volume.root_differs = True
            self.name_changed_commits(volume, max(differing, key=lambda c: c.size))
        for checkpoint, key, where in good:
            # proof.md, Key records: a checkpoint by a retired key counts if its size is at most
            # that of the `log` line. A larger one counts only if a later key has signed a
            # checkpoint of at least the same size.
            until = self.keys.retired_at(key, volume.name)
            if until is not None and checkpoint.size > until[0]:
                later = self.keys.all()[self.keys.all().index(key) + 1 :]
                if not any(c.size >= checkpoint.size and k in later for c, k in volume.valid):
                    volume.valid = [v for v in volume.valid if v[0] is not checkpoint]
                    self.report.finding("key_retired", where, "signed by a key that was retired at size %d, and no later key has signed this size or a larger one" % max(until[0], 0))

    @staticmethod
    def roots(volume, roots):
        """Fills in the roots of the volume's commits at the sizes that are keys of `roots`."""
        tree = MerkleTree()
        if 0 in roots:
            roots[0] = tree.root()
        for leaf in volume.leaves:
            tree.add(leaf)
            if tree.size in roots:
                roots[tree.size] = tree.root()

    def tile(self, volume, level, index, width):
        """Returns (path, bytes) of a tile. If a partial tile is missing, its bytes are taken from
        the start of the full tile. Returns None instead of the bytes if neither exists, and a
        string that says why if the file is not a tile."""
        for w in (width, 256) if width < 256 else (256,):
            where = "%s/_tlog/%s" % (volume.name, tile_path(level, index, w))
            try:
                data = self.root.read(where, 32 * 256)
            except (Malformed, NotPlain) as e:
                return where, str(e)
            if data is not None:
                if len(data) != 32 * w:
                    return where, "its length is %d, not %d" % (len(data), 32 * w)
                return where, data[: 32 * width]
        return "%s/_tlog/%s" % (volume.name, tile_path(level, index, width)), None

    def name_changed_commits(self, volume, checkpoint):
        """Reports which commits were changed, if the commits do not give the root of a checkpoint.
        These are the commits whose leaf hash differs from the tiles of level 0. If the hashes in
        the tiles give the signed root, the tiles are right and the commits are not."""
        leaves = []
        for level, index, width in tiles_of(checkpoint.size):
            if level:
                break
            data = self.tile(volume, level, index, width)[1]
            if not isinstance(data, bytes):
                return
            leaves += [data[i : i + 32] for i in range(0, len(data), 32)]
        proven = merkle_root(leaves) == checkpoint.root
        for i, leaf in enumerate(leaves):
            if leaf != volume.leaves[i]:
                source = "the tile, which gives the signed root" if proven else "the tile, which does not give the signed root either"
                self.report.finding("commit_changed", volume.commits[i].where, "its leaf hash is not that of %s" % source)

    def witnessed(self, volume):
        """proof.md, Witnesses: every cosigned checkpoint belongs to this log, and enough of the
        given witnesses have cosigned the log's current tree."""
        origin, seen, strangers, roots, good = "strongroom/%s/%s" % (self.report.archive_id, volume.name), {}, 0, {}, []
        for name, where, data in volume.cosigned:
            if data is None or name.startswith("."):
                continue
            self.report.count("cosignatures")
            try:
                checkpoint = Checkpoint(data)
            except Malformed as e:
                self.report.finding("checkpoint_malformed", shown(where), str(e))
                continue
            if checkpoint.origin != origin:
                self.report.finding("checkpoint_origin", shown(where), "its origin is %s, not %s" % (shown(checkpoint.origin), origin))
                continue
            try:
                if not checkpoint.note.signers(origin, self.keys.all()):
                    raise BadSignature("no known key signed it")
            except BadSignature as e:
                self.report.finding("checkpoint_signature", shown(where), str(e))
                continue
            if name[21:] not in {i.hex() for n, i, _ in checkpoint.note.signatures if n != origin} or name[:21] != "%020d-" % checkpoint.size:
                self.report.finding("witness_malformed", shown(where), "its name is not its size and the id of a witness in it")
                continue
            witness = next((w for w in self.witnesses if w.id.hex() == name[21:] and w.key not in self.keys.all()), None)
            try:
                when = witness and witness.cosigned(checkpoint.note)
                if witness and when is None:
                    raise BadSignature("the witness of its name has not cosigned it")
            except BadSignature as e:
                self.report.finding("witness_signature", shown(where), str(e))
                continue
            strangers += witness is None
            if checkpoint.size > len(volume.leaves):
                self.report.finding("commits_cut", where, "a witness has seen %d commits, and %d exist" % (checkpoint.size, len(volume.leaves)))
                continue
            roots[checkpoint.size] = None
            good.append((checkpoint, where, witness, when))
        self.roots(volume, roots)
        for checkpoint, where, witness, when in good:
            if roots[checkpoint.size] != checkpoint.root:
                self.report.finding("forked", where, "at size %d a witness has seen another log than this one" % checkpoint.size)
            elif witness:
                seen[witness.id] = max(seen.get(witness.id, (0, 0)), (checkpoint.size, when))
        if strangers:
            self.report.skipped("%s: who made %d cosignatures: the keys of their witnesses were not given (--witness)" % (volume.name, strangers))
        newest, enough = max([c.size for c, _ in volume.valid], default=0), sorted(seen.values(), reverse=True)[: self.quorum]
        size = enough[-1][0] if len(enough) == self.quorum and enough else 0
        if not self.quorum or size >= newest:
            return
        text = "%d of its %d signed commits are not cosigned by %d of the witnesses" % (newest - size, newest, self.quorum)
        # The times are by the clocks of the witnesses. For an hour after a cosignature, the witness
        # may not have been asked to cosign the newer commits yet.
        if size and self.now - 1000 * min(when for _, when in enough) <= RECENT_MS_MAX:
            self.report.skipped("%s: %s yet" % (volume.name, text))
        else:
            self.report.finding("witness_missing", volume.name + "/_tlog/witness", text)

    def stamps(self, volume):
        """proof.md, Timestamps: each timestamp is signed and over its checkpoint. If authorities
        are given, each log has a timestamp that chains to one of them."""
        notes, newest, count = {name: data for name, _, data in volume.notes}, 0, 0
        for name, where, data in volume.stamped:
            if data is None or name.startswith("."):
                continue
            self.report.count("timestamps")
            count += 1
            try:
                if not re.fullmatch("[0-9]{20}-[0-9a-f]{8}-[0-9a-f]{8}", name, re.ASCII):
                    raise Malformed("its name is not that of a timestamp")
                timestamp = Timestamp(data)
                timestamp.check(self.authorities)
            except Malformed as e:
                self.report.finding("timestamp_malformed", shown(where), str(e))
                continue
            except BadSignature as e:
                self.report.finding("timestamp_signature", where, str(e))
                continue
            if timestamp.imprint != sha256(notes.get(name[:29]) or b""):
                self.report.finding("timestamp_imprint", where, "it is not over the checkpoint %s" % name[:29])
                continue
            newest = max(newest, int(name[:20]))
        signed = max([c.size for c, _ in volume.valid], default=0)
        if not self.authorities:
            if count:
                self.report.skipped("%s: whose %d timestamps are: no authority was given (--tsa-ca)" % (volume.name, count))
        elif signed > newest > 0:
            self.report.skipped("%s: when commits %d to %d were made: the newest timestamp is of size %d" % (volume.name, newest, signed - 1, newest))
        elif signed > newest:
            self.report.finding("timestamp_missing", volume.name + "/_tlog/timestamp", "there is no timestamp that chains to a given authority")

    def point_4_tiles(self, volume):
        # If the root differs, name_changed_commits has compared the tiles of level 0 with the
        # commits. No other difference of a tile is reported.
        if volume.root_differs:
            return
        levels, needed = tile_levels(volume.leaves), set()
        # In a bucket, each tile costs a request, so only the tiles of the largest checkpoint are
        # checked.
        if not self.root.is_bucket:
            for size in {c.size for c, _ in volume.valid}:
                needed.update(t for t in tiles_of(size) if t[2] < 256)
        needed.update(tiles_of(max([c.size for c, _ in volume.valid], default=0)))
        for level, index, width in sorted(needed):
            where, data = self.tile(volume, level, index, width)
            self.report.count("tiles")
            if data is None:
                self.report.finding("tile_missing", where, "a checkpoint needs it")
            elif data != b"".join(levels[level][index * 256 : index * 256 + width]):
                detail = "its hashes are not those that the commits give"
                self.report.finding("tile_changed", where, detail if isinstance(data, bytes) else data)

    def head(self, volume):
        newest = max((c for c, _ in volume.valid), key=lambda c: c.size, default=None)
        if newest is None:
            self.report.skipped("%s has no valid checkpoint: nothing proves its %d commits" % (volume.name, len(volume.commits)))
        else:
            self.report.heads.append({"log": newest.origin, "size": newest.size, "root": base64.b64encode(newest.root).decode()})
        behind = volume.commits[newest.size if newest else 0 :]
        if behind and self.keys.records and not all(c.timestamp is not None and self.recent(c.timestamp) for c in behind):
            detail = "%d commits from this one on have no checkpoint, and not all of them were made within the last hour"
            self.report.finding("unproven", behind[0].where, detail % len(behind))
        elif behind and newest:
            self.report.skipped("%s: commits from %d on are after the newest checkpoint" % (volume.name, newest.size))

    def recent(self, ms):
        """Returns True if the time is within the last hour, or ahead of this machine's clock by at
        most 10 minutes."""
        return self.now - RECENT_MS_MAX <= ms <= self.now + CLOCK_BACK_MS_MAX

    def log_lines(self):
        """proof.md, Key records: the size and root in a `log` line must be those of a tree of the
        volume."""
        for record in self.keys.records:
            for name, (size, root) in sorted(record.logs.items()):
                self.compare("_keys/%08d" % record.number, name, size, root, "key_record", "key_record", newest=False)

    def named_volumes(self):
        """format.md, Commits: `volumes` in a commit names other volumes, each with a number of
        commits that the volume had at that time. Point 14: these commits must exist, unless their
        volume was dropped."""
        named = {}
        for volume in self.volumes:
            for commit in volume.commits:
                volumes = commit.strongroom.get("volumes") if isinstance(commit.strongroom, dict) else None
                volumes = {} if volumes is None else volumes
                if not isinstance(volumes, dict) or not all(VOLUME.fullmatch(name) and is_int(size, 1) and size < 1 << 64 for name, size in volumes.items()):
                    self.report.finding("commit_malformed", commit.where, "`volumes` are not volumes and numbers of commits")
                    continue
                for name, size in volumes.items():
                    named[name] = max(named.get(name, (0, "")), (size, commit.where))
        there = {v.name: len(v.leaves) for v in self.volumes}
        there.update({name: record["size"] for name, (record, _) in self.dropped.items()})
        for name, (size, where) in sorted(named.items()):
            if there.get(name, 0) >= size:
                continue
            # The last of these commits may have been made during this check, after the commits of
            # its volume were read. If a commit before it is missing, that is a finding of another
            # kind.
            try:
                if self.root.read("%s/_delta_log/%020d.json" % (name, size - 1), COMMIT_BYTES_MAX) is not None:
                    continue
            except (Malformed, NotPlain):
                pass
            if name in there:
                self.report.finding("commits_cut", name, "%s names %d commits of it, and it has %d" % (where, size, there[name]))
            elif not any(f["kind"] == "volume_missing" and f["where"] == name for f in self.report.findings):
                self.report.finding("volume_missing", name, "%s names %d commits of it; it is missing, and no record says that it was dropped" % (where, size))

    def compare(self, where, name, size, root, cut, differs, newest):
        """Compares a size and root, which were signed or remembered earlier, with a volume. The
        volume must have that many commits. If `newest` is given, the commits must be under a valid
        checkpoint. `cut` and `differs` are the kinds of findings for too few commits and another
        root."""
        if name in self.dropped:
            self.compare_dropped(where, name, size, root, newest)
            return
        volume = next((v for v in self.volumes if v.name == name), None)
        if volume is None and not newest:
            self.report.finding("volume_missing", shown(name), "%s names %d commits of it; it is missing, and no record says that it was dropped" % (where, size))
            return
        have = 0 if volume is None else len(volume.leaves)
        if newest and volume is not None:
            have = min(have, max((c.size for c, _ in volume.valid), default=0))
        roots = {size: None}
        if volume is None or size > have:
            self.report.finding(cut, where, "%s had %d commits, and %d exist%s" % (name, size, have, " and proven" if newest else ""))
        if volume is not None and size <= len(volume.leaves):
            self.roots(volume, roots)
            if roots[size] != root:
                self.report.finding(differs, where, "the first %d commits of %s give another root" % (size, name))

    def compare_dropped(self, where, name, size, root, newest):
        """Like `compare`, but with the volume's last tree, which is in its drop record. Does
        nothing for the `log` lines (without `newest`): Keeping.drop has compared them with that
        tree."""
        record, place = self.dropped[name][0], "_dropped/%s" % name.replace("/", "-")
        if not newest:
            return
        if size > record["size"]:
            self.report.finding("rolled_back", place, "%s has %d commits of it, and it was dropped with %d" % (where, size, record["size"]))
        elif size == record["size"] and root != record["root"]:
            self.report.finding("forked", place, "the tree with which it was dropped is not the tree in %s" % where)
        elif size < record["size"]:
            self.report.skipped("whether %s, of size %d, is a prefix of %s, which was dropped" % (where, size, name))

    def with_dropped(self):
        """Returns the volumes, including dropped volumes, sorted by table and period. A dropped
        volume is returned with a single commit, which has the positions and offsets of the volume's
        state."""
        volumes = list(self.volumes)
        for name, (record, state) in self.dropped.items():
            volume, commit = Volume(*name.split("/")), Commit("_dropped/%s" % name.replace("/", "-"))
            add = Add("(its files)", 0, None, {}, None)
            add.offsets, add.rows = state["offsets"], record["rows"]
            commit.txns, commit.adds, commit.was_dropped = dict(state["txns"]), [add], True
            volume.commits = [commit]
            volumes.append(volume)
        return sorted(volumes, key=lambda v: (TABLES.index(v.table), v.period))

    def point_5_remembered(self):
        prefix = "strongroom/%s/" % self.report.archive_id
        for where, data in self.remembered:
            self.report.count("remembered")
            try:
                checkpoint = Checkpoint(data)
                volume = checkpoint.origin[len(prefix) :]
                if not checkpoint.origin.startswith(prefix) or not VOLUME.fullmatch(volume):
                    raise Malformed("it is of another archive: %s" % shown(checkpoint.origin))
                if not checkpoint.note.signers(checkpoint.origin, self.keys.all()):
                    raise Malformed("no known key signed it")
            except (Malformed, BadSignature) as e:
                self.report.finding("remembered_invalid", where, str(e))
                continue
            self.compare(where, volume, checkpoint.size, checkpoint.root, "rolled_back", "forked", newest=True)
        if self.since:
            where, archive_id, heads = self.since
            if archive_id != self.report.archive_id:
                self.report.finding("remembered_invalid", where, "it is of another archive: %s" % shown(archive_id))
                return
            for log, size, root in heads:
                self.report.count("remembered")
                self.compare(where, log[len(prefix) :], size, root, "rolled_back", "forked", newest=True)

    def clock_records(self):
        """proof.md, Clock records: which of them are about the commits of the archive. Fills in
        `excuses` of the volumes and `floors`: it maps a year that a wrong clock has begun to the
        year in which that was, None if nobody knows."""
        volumes = {v.name: v for v in self.volumes}
        for record in self.clock:
            if record["volume"] in self.dropped:
                continue
            where, volume, size = "_clock/%08d" % record["number"], volumes.get(record["volume"]), record["last"] + 1
            if volume is None or size > len(volume.leaves):
                have = 0 if volume is None else len(volume.leaves)
                self.report.finding("clock_record", where, "it is about commit %d of %s, which has %d" % (size - 1, record["volume"], have))
                continue
            roots = {size: None}
            self.roots(volume, roots)
            if roots[size] != record["root"]:
                self.report.finding("clock_record", where, "it names another tree than the first %d commits have" % size)
                continue
            made = "nobody knows when" if record["from"] is None else "between %sZ and %sZ" % (record["from"].isoformat(), record["to"].isoformat())
            self.report.skipped(
                "%s: the times of commits %d to %d are of a wrong clock; by the owner of the key, they were made %s (%s)"
                % (record["volume"], record["first"], record["last"], made, shown(record["reason"]))
            )
            if record["first"] == 0:
                year = int(volume.period[:4])
                self.floors[year] = None if record["from"] is None else min(year, record["from"].year)
            volume.excuses.append(record)

    def point_6_actions(self, volume):
        before, closed = None, False
        named = int(volume.period[:4])
        floor = self.floors.get(named, named)
        for i, commit in enumerate(volume.commits):
            if closed:
                self.report.finding("volume_reopened", commit.where, "a commit before it closed the volume")
            closed = closed or CLOSED in commit.txns
            for kind in commit.foreign + (commit.setup if i else []):
                self.report.finding("not_append_only", commit.where, "it has an action `%s`" % shown(kind))
            excuse = next((r for r in reversed(volume.excuses) if r["first"] <= i <= r["last"]), None)
            if excuse is not None and excuse["from"] is None:
                continue
            # The earliest and the latest time at which it may have been made.
            if excuse is not None:
                earliest, latest = (int(t.replace(tzinfo=datetime.timezone.utc).timestamp()) * 1000 for t in (excuse["from"], excuse["to"]))
            elif commit.timestamp is not None:
                earliest = latest = commit.timestamp
            else:
                continue
            if before is not None and latest < before - CLOCK_BACK_MS_MAX:
                self.report.finding("clock_back", commit.where, "its time is %d s before that of the commit before" % ((before - latest) // 1000))
            before = earliest if excuse is None or before is None else max(before, earliest)
            year = datetime.datetime.fromtimestamp(latest // 1000, datetime.timezone.utc).year
            if floor is not None and year < floor:
                self.report.finding("wrong_year", commit.where, "it was made in %d" % year)

    def point_7_files(self, volume):
        """Checks point 7 and, if there is a Parquet reader, points 8 and 16."""
        named, total = set(), sum(len(c.adds) for c in volume.commits)
        for commit in volume.commits:
            meaning = self.meaning(volume.table, commit)
            for add in commit.adds:
                where = "%s/%s" % (volume.name, add.path)
                if add.path in named:
                    self.report.finding("file_named_twice", where, "%s names it again" % commit.where)
                named.add(add.path)
                if add.date != add.path[5:15]:
                    self.report.finding("statistics", where, "`partitionValues.date` is not the day of its path")
                self.statistics(add, where)
                self.tags(volume.table, add, where)
                self.report.count("files")
                self.progress.show("%s: file %d of %d" % (volume.name, self.report.checked["files"], total))
                self.file(volume, add, (commit.timestamp or 0) * 1000, where, meaning)
        volume.named = named

    def meaning(self, table, commit):
        """Returns the function that compares the columns of a row with its record. Returns None for
        a table that has no such function, and for events in a format newer than EVENTS_FORMAT."""
        said = commit.strongroom.get("eventsFormat") if isinstance(commit.strongroom, dict) else None
        if table == "events" and is_int(said) and EVENTS_FORMAT < said < 1 << 63:
            if commit.adds and pyarrow is not None and self.with_rows:
                self.newer += len(commit.adds)
            return None
        return {"events": self.events[2 if is_int(said) and said == 2 else 1], "alerts": alert_differs}.get(table)

    def statistics(self, add, where):
        """Parses `stats`, which is JSON in a string. Replaces add.stats with the parsed object;
        with an empty object if it is not valid."""
        text, add.stats = add.stats, {}
        try:
            stats = parse_json(text) if isinstance(text, str) else None
            if not isinstance(stats, dict) or not is_int(stats.get("numRecords")):
                raise Malformed("no `stats` with `numRecords`")
            if not all(isinstance(stats.get(k, {}), dict) for k in ("minValues", "maxValues")):
                raise Malformed("`minValues` and `maxValues` are not objects")
            add.stats = stats
        except Malformed as e:
            self.report.finding("statistics", where, str(e))

    def tags(self, table, add, where):
        """proof.md, Files: an `add` has all four tags."""
        tags = {} if add.tags is None else add.tags
        try:
            if not isinstance(tags, dict) or not all(isinstance(v, str) for v in tags.values()):
                raise Malformed("`tags` is not an object of strings")
            if "sha256" in tags:
                add.sha256 = parse_hash(tags["sha256"])
            missing = {"sha256", "record_root", "rows", "offsets"} - set(tags)
            if missing:
                raise Malformed("no tag `%s`" % sorted(missing)[0])
            add.record_root, add.rows = parse_hash(tags["record_root"]), parse_decimal(tags["rows"])
            offsets = parse_json(tags["offsets"])
            if not isinstance(offsets, dict) or not all(
                isinstance(v, list) and len(v) == 3 and all(is_int(n) and n < 1 << 63 for n in v) and v[0] <= v[1] and v[2] > 0 for v in offsets.values()
            ):
                raise Malformed("`offsets` is not an object of [first, last, rows]")
            rows = sum(v[2] for v in offsets.values())
            if rows > add.rows or (rows < add.rows and table != "alerts"):
                raise Malformed("`offsets` have %d rows, and `rows` is %d" % (rows, add.rows))
            if add.stats and add.stats["numRecords"] != add.rows:
                raise Malformed("`rows` is %d, and `numRecords` in `stats` is %d" % (add.rows, add.stats["numRecords"]))
            add.offsets = offsets
        except Malformed as e:
            self.report.finding("tags", where, str(e))

    def file(self, volume, add, committed, where, meaning):
        try:
            file = self.root.open(where, add.version, add.size)
        except (NotPlain, Unreadable, Malformed) as e:
            self.report.finding({NotPlain: "file_missing", Malformed: "file_size"}.get(type(e), "file_unreadable"), where, str(e))
            return
        if file is None:
            self.report.finding("file_missing", where, "not there")
            return
        with file:
            try:
                size = os.fstat(file.fileno()).st_size
                if size != add.size:
                    self.report.finding("file_size", where, "%d bytes, and the commit says %d" % (size, add.size))
                    return
                if size > FILE_BYTES_MAX:
                    self.report.finding("file_size", where, "%d bytes, and a file has at most %d" % (size, FILE_BYTES_MAX))
                    return
                if add.sha256 is not None:
                    digest = hashlib.sha256()
                    for block in iter(lambda: file.read(BLOCK_BYTES), b""):
                        digest.update(block)
                        self.report.count("bytes", len(block))
                    if digest.digest() != add.sha256:
                        self.report.finding("file_changed", where, "its SHA-256 is not the tag's")
                        return
                if pyarrow is None:
                    self.report.skipped("rows inside the files (points 8 and 16): no Parquet reader, because pyarrow is not installed")
                elif not self.with_rows:
                    self.report.skipped("rows inside the files (points 8 and 16): --no-rows was given")
                else:
                    file.seek(0)
                    check_rows(volume.table, file, add, committed, where, self.report, meaning)
            except OSError as e:
                self.report.finding("file_unreadable", where, str(e.strerror))

    def point_15_delta_checkpoints(self, volume):
        """A reader of Delta that finds `<version>.checkpoint.parquet` does not read the commits up
        to that version. So the file must state exactly what these commits state."""
        for name in volume.others:
            where = "%s/_delta_log/%s" % (volume.name, name)
            match = re.fullmatch(r"([0-9]{20})\.checkpoint\.parquet", name, re.ASCII)
            if re.search(r"#[0-9]+$", name, re.ASCII):
                continue
            if not match and name != "_last_checkpoint":
                self.report.finding("delta_checkpoint", shown(where), "a file of this name does not belong here, and readers may follow it")
                continue
            try:
                if not match:
                    last = parse_json(self.root.read(where, NOTE_BYTES_MAX) or b"null")
                    version = last.get("version") if isinstance(last, dict) else None
                    if not is_int(version) or not 0 <= version < 10**20:
                        raise Malformed("it names no version")
                    checkpoint = self.root.open("%s/_delta_log/%020d.checkpoint.parquet" % (volume.name, version))
                    if checkpoint is None:
                        raise Malformed("it does not name an existing checkpoint")
                    checkpoint.close()
                    if version >= len(volume.commits) and self.root.read("%s/_delta_log/%020d.json" % (volume.name, version), COMMIT_BYTES_MAX) is None:
                        raise Malformed("it does not name an existing commit")
                    continue
                if int(match[1]) >= len(volume.commits):
                    raise Malformed("it is of a missing commit")
                if pyarrow is None or not self.with_rows:
                    self.report.skipped("Delta's own checkpoints (point 15): no Parquet reader, or --no-rows was given")
                    continue
                file = self.root.open(where)
                if file is None:
                    continue
                with file:
                    table = pyarrow.parquet.read_table(file).to_pydict()
                said, wanted = {k: [r for r in v if r is not None] for k, v in table.items()}, volume.commits[: int(match[1]) + 1]
                self.compare_delta(where, said, wanted)
                self.report.count("delta_checkpoints")
            except (Malformed, NotPlain) as e:
                self.report.finding("delta_checkpoint", where, str(e))
            except (pyarrow.ArrowException if pyarrow else OSError, ValueError, TypeError, KeyError, AttributeError, OSError) as e:
                self.report.finding("delta_checkpoint", where, "it cannot be read: %s" % shown(e))

    def compare_delta(self, where, said, commits):
        def differ(detail):
            self.report.finding("delta_checkpoint", where, detail)

        for column in set(said) - {"add", "remove", "txn", "protocol", "metaData"}:
            if said[column]:
                differ("it has `%s`, which commits never have" % shown(column))
        if said.get("remove"):
            differ("it removes %d files" % len(said["remove"]))
        txns = {}
        for commit in commits:
            txns.update(commit.txns)
        if sorted((t["appId"], t["version"]) for t in said.get("txn", [])) != sorted(txns.items()):
            differ("its positions are not those of the commits")

        def brief(stats):
            stats = parse_json(stats) if isinstance(stats, str) else stats or {}
            return stats.get("numRecords"), stats.get("minValues") or {}, stats.get("maxValues") or {}

        expected = {a.path: (a.size, a.date, brief(a.stats), (a.tags or {}).get("version_id")) for c in commits for a in c.adds}
        for add in said.get("add", []):
            version = dict(add.get("tags") or []).get("version_id")
            if expected.pop(add["path"], None) != (add["size"], dict(add["partitionValues"]).get("date"), brief(add.get("stats")), version):
                differ("its entry of %s is not that of the commit, or is there twice" % shown(add["path"]))
            for member in sorted(set(add) - ADD_MEMBERS):
                if add[member] is not None:
                    differ("it has the member `%s` of a file, and commits never have it" % shown(member))
        for path in sorted(expected)[:TOLD_MAX]:
            differ("it leaves out %s" % path)
        first = commits[0].table
        for kind, members in (
            ("protocol", ("minReaderVersion", "minWriterVersion", "readerFeatures", "writerFeatures")),
            ("metaData", ("id", "format", "schemaString", "partitionColumns", "configuration")),
        ):
            def pick(body):
                body = dict(body or {}, format=(body or {}).get("format") and body["format"].get("provider"))
                body["configuration"] = dict(body.get("configuration") or {})
                return [body.get(m) or None for m in members]

            if [pick(body) for body in said.get(kind, [])] != [pick(first.get(kind))]:
                differ("its `%s` is not that of commit 0" % kind)

    def point_9_and_10_positions(self):
        """Checks the commits of `events` of all volumes: in each source partition, positions never
        decrease, and no row is missing or extra. Checks `activity` in the same way; it has its own
        sources and no rejects."""
        volumes = self.with_dropped()
        untagged = self.untagged_sources(volumes)
        self.ends = self.positions_of("events", volumes, RejectRanges(volumes), untagged)
        self.positions_of("activity", volumes, RejectRanges([]), untagged)

    def positions_of(self, table, volumes, rejects, untagged):
        position, events, told = defaultdict(lambda: (0, 0)), defaultdict(int), {}
        for volume in (v for v in volumes if v.table == table):
            for commit in volume.commits:
                before = {}
                for partition, (o2, r2) in self.moves(commit, position):
                    before[partition] = o1, r1 = position[partition]
                    if o2 < o1 or r2 < r1:
                        detail = "%s goes back: offset %d to %d, records %d to %d" % (shown(partition), o1, o2, r1, r2)
                        self.report.finding("position_back", commit.where, detail)
                    position[partition] = o2, r2
                    if table == "activity" and o2 != r2:  # the offset of a record is its number
                        self.report.finding("rows_missing" if o2 > r2 else "rows_extra", commit.where, "%s: offset %d with %d records" % (shown(partition), o2, r2))
                for add in commit.adds:
                    for partition, (first, last, rows) in (add.offsets or {}).items():
                        o1, o2 = before.get(partition, position[partition])[0], position[partition][0]
                        if first < o1 or last >= o2:
                            detail = "%s has offsets %d..%d of %s, and the commit goes from %d to %d"
                            self.report.finding("overlap", commit.where, detail % (add.path, first, last, shown(partition), o1, o2))
                        events[partition] += rows
                if table == "events":
                    self.counts(commit)
                for partition in before:
                    self.report.count("positions")
                    o2, r2 = position[partition]
                    have = rejects.before(partition, o2)
                    if any(low <= partition <= high for low, high in untagged) or have is None:
                        continue
                    difference = events[partition] + have - r2
                    if difference != told.get(partition, 0):  # report a difference once, not again in every later commit
                        detail = "%s: %d records up to offset %d, and files hold %d rows and %d rejects"
                        kind = "rows_missing" if difference < 0 else "rows_extra"
                        if difference:
                            self.report.finding(kind, commit.where, detail % (shown(partition), r2, o2, events[partition], have))
                        told[partition] = difference
        return {partition: offset for partition, (offset, _) in position.items()}

    def moves(self, commit, position):
        """Yields (partition, (offset, records)) for every partition that the commit names
        (format.md, Commits)."""
        for app, version in sorted(commit.txns.items()):
            if app == CLOSED:  # no partition
                continue
            if app.endswith(("#records", "#broker", "#blake3.hi", "#blake3.lo")):
                if app.rpartition("#")[0] not in commit.txns:
                    self.report.finding("commit_malformed", commit.where, "`txn` %s without its partition's own" % shown(app))
            elif version < 0 or commit.txns.get(app + "#records", -1) < 0:
                self.report.finding("commit_malformed", commit.where, "the position of %s is negative, or lacks `#records`" % shown(app))
            else:
                yield app, (version, commit.txns[app + "#records"])

    def counts(self, commit):
        """Point 10, the counts in `commitInfo`."""
        if commit.was_dropped or not commit.adds and commit.strongroom is None:
            return
        counts = commit.strongroom.get("counts") if isinstance(commit.strongroom, dict) else None
        names = ("received", "events", "rejects", "duplicates")
        if not isinstance(counts, dict) or not all(is_int(counts.get(n)) for n in names):
            self.report.finding("counts", commit.where, "no `counts` with received, events, rejects and duplicates")
            return
        rows = sum(a.rows if a.rows is not None else a.stats.get("numRecords", 0) for a in commit.adds)
        if counts["received"] != counts["events"] + counts["rejects"] + counts["duplicates"]:
            self.report.finding("counts", commit.where, "received is not events + rejects + duplicates")
        if counts["events"] != rows:
            self.report.finding("counts", commit.where, "events is %d, and the files have %d rows" % (counts["events"], rows))

    def untagged_sources(self, volumes):
        """Returns (low, high) for each file whose offsets are missing or malformed: the names of
        its partitions are between these two. The rows of such partitions cannot be counted."""
        ranges = set()
        for volume in (v for v in volumes if v.table != "alerts"):
            for add in (a for c in volume.commits for a in c.adds if a.offsets is None):
                low, high = (add.stats.get(k, {}).get("source") for k in ("minValues", "maxValues"))
                known = isinstance(low, str) and isinstance(high, str)
                ranges.add((low, high) if known else ("", chr(sys.maxunicode)))
        if ranges:
            self.report.skipped("conservation (point 10) of partitions with files whose offsets are not known")
        return ranges

    def point_11_other_tables(self):
        for table in ("rejects", "alerts"):
            position, ahead, first = {}, 0, None
            for commit in (c for v in self.with_dropped() if v.table == table for c in v.commits):
                beyond = []
                for partition, (offset, _) in self.moves(commit, position):
                    if offset < position.get(partition, offset):
                        self.report.finding("position_back", commit.where, "%s goes back: offset %d to %d" % (shown(partition), position[partition], offset))
                    position[partition] = offset
                    if offset > self.ends.get(partition, 0):
                        beyond.append(partition)
                if beyond and commit.timestamp is not None and commit.timestamp < self.now - RECENT_MS_MAX:
                    ahead, first = ahead + 1, first or beyond[0]
                for add in commit.adds:
                    for partition, (_, last, _) in (add.offsets or {}).items():
                        if last >= position.get(partition, 0):
                            detail = "%s has offset %d of %s, and the position is %d"
                            self.report.finding("overlap", commit.where, detail % (add.path, last, shown(partition), position.get(partition, 0)))
            if ahead:
                detail = "%d commits of %s are beyond the newest events; those of source %s end at offset %d" % (ahead, table, shown(first), self.ends.get(first, 0))
                if ahead > COMMITS_AHEAD_MAX:
                    self.report.finding("commits_cut", "events", detail)
                else:
                    self.report.skipped("whether the newest events are missing: %s; a killed run leaves this until it runs again" % detail)

    def point_12_unnamed(self):
        for volume in self.volumes:
            # Only commits that add files count. The first commit of a volume adds none, because it
            # only creates the table, and files of the second commit may be written before the first
            # commit is.
            last = max((c.timestamp or 0 for c in volume.commits if c.adds), default=0)
            for path in volume.files:
                where = "%s/%s" % (volume.name, path)
                if path in volume.named:
                    continue
                try:
                    status = self.root.status(where)
                except NotPlain:
                    status = None
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_mtime * 1000 > last and self.recent(status.st_mtime * 1000):
                    self.report.skipped("files written after the last commit of %s, which no commit names: a run that was killed, or is still running" % volume.name)
                else:
                    self.report.finding("file_unnamed", shown(where), "no `add` names it")


class RejectRanges:
    """Computes the number J of point 10: how many rows of a partition before an offset are in files
    of `rejects`."""

    def __init__(self, volumes):
        self.ranges = defaultdict(list)
        for volume in (v for v in volumes if v.table == "rejects"):
            for add in (a for c in volume.commits for a in c.adds):
                for partition, (first, last, rows) in (add.offsets or {}).items():
                    self.ranges[partition].append((last, first, rows))
        self.sums = {}
        for partition, ranges in self.ranges.items():
            ranges.sort()
            sums, least = [0], [1 << 64]
            for _, _, rows in ranges:
                sums.append(sums[-1] + rows)
            for _, first, _ in reversed(ranges):
                least.append(min(first, least[-1]))
            # At index i: the number of rows of the first i ranges, and the least `first` of the
            # ranges after them.
            self.sums[partition] = sums, least[::-1]

    def before(self, partition, offset):
        """Returns the number of rows before the offset. Returns None if a range starts before the
        offset but does not end before it, because the number is unknown in that case."""
        if partition not in self.sums:
            return 0
        i = bisect.bisect_left(self.ranges[partition], (offset,))
        sums, least = self.sums[partition]
        return None if least[i] < offset else sums[i]


# Rows of a Parquet file, point 8. format.md, Original bytes.


# The columns of each table, in order, with their types unless these are strings; and how many of the
# last ones older files lack. format.md, Tables.
COLUMNS = {
    table: [tuple((text + ":string").split(":")[:2]) for text in columns.split()]
    for table, columns in {
        "events": "audit_id stage level verb request_uri user_name user_uid user_groups:list user_extra impersonated_user_name impersonated_user_groups:list"
        " impersonated_user_extra source_ips:list user_agent resource subresource namespace name api_group api_version object_uid resource_version"
        " response_code:int32 response_status response_reason response_message response_details request_object response_object annotations authz_decision"
        " authz_reason request_received_timestamp:time stage_timestamp:time cluster source source_offset:int64 raw:binary shape frame_before:binary"
        " frame_after:binary form form_values:list redaction faults:list",
        "rejects": "raw:binary reason detail cluster source source_offset:int64 line:int64 received_timestamp:time",
        "alerts": "alert_id rule_id rule_name title severity time:time window_start:time window_end:time cluster actor source_ip verb resource subresource"
        " namespace name group_key event_count:int64 audit_ids:list tactics:list techniques:list message next_steps ocsf source source_offset:int64"
        " namespaces:list actors:list clusters:list event_ranges",
        "activity": "kind time:time principal subject body source source_offset:int64",
    }.items()
}
LATER = {"events": 4, "alerts": 4}
ARROW_TYPES = {"time": "timestamp[us, tz=UTC]"}


def check_columns(table, schema):
    """Raises Malformed if a file has other columns than its table, in another order, or of other
    types. Newer files may have more, after these."""
    known = COLUMNS[table]
    if len(schema) < len(known) - LATER.get(table, 0):
        raise Malformed("it has %d columns" % len(schema))
    for i, field in enumerate(schema):
        if i >= len(known):
            if field.name in dict(known):
                raise Malformed("it has the column `%s` twice" % shown(field.name))
            continue
        name, kind = known[i]
        is_list = pyarrow.types.is_list(field.type)
        found = "list" if is_list and str(field.type.value_type) == "string" else str(field.type)
        if field.name != name or found != ARROW_TYPES.get(kind, kind):
            raise Malformed("its column %d is `%s` of type %s, and not `%s`" % (i, shown(field.name), shown(str(field.type)), name))


DEFAULT_SHAPE = '"kind":"Event","apiVersion":"audit.k8s.io/v1",'
ESCAPED = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029]')
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def go_string(text):
    """A JSON string as Go's encoding/json writes it (rule 4)."""
    return '"%s"' % ESCAPED.sub(lambda m: ESCAPES.get(m[0]) or "\\u%04x" % ord(m[0]), text)


def go_strings(values):
    """A JSON list of strings as Go writes it. A null item is written as an empty string."""
    return "[%s]" % ",".join(go_string(value or "") for value in values)


YEARS_400_US = 146_097 * DAY_US


def utc_time(micros):
    """Returns a text like 2006-01-02T15:04:05.000000Z. If the year has more than four digits, only
    the last four are written; a year before 1 is written as 0000."""
    past, within = divmod(micros + 719_162 * DAY_US, YEARS_400_US)  # since the year 1
    at = datetime.datetime(1, 1, 1) + datetime.timedelta(microseconds=within)
    year = at.year + 400 * past
    return "%04d" % (year % 10_000 if year > 0 else 0) + at.isoformat(timespec="microseconds")[4:] + "Z"


def same(value):
    return value


# (JSON key, column, function that writes the value), in kube-apiserver's order (rule 2).
USER = (("username", "user_name", go_string), ("uid", "user_uid", go_string), ("groups", "user_groups", go_strings), ("extra", "user_extra", same))
IMPERSONATED = (
    ("username", "impersonated_user_name", go_string),
    ("groups", "impersonated_user_groups", go_strings),
    ("extra", "impersonated_user_extra", same),
)
OBJECT_REF = tuple(
    (key, column, go_string)
    for key, column in (
        ("resource", "resource"),
        ("namespace", "namespace"),
        ("name", "name"),
        ("uid", "object_uid"),
        ("apiGroup", "api_group"),
        ("apiVersion", "api_version"),
        ("resourceVersion", "resource_version"),
        ("subresource", "subresource"),
    )
)
STATUS = (
    ("status", "response_status", go_string),
    ("message", "response_message", go_string),
    ("reason", "response_reason", go_string),
    ("details", "response_details", same),
    ("code", "response_code", str),
)
HEAD = tuple((k, c, go_string) for k, c in (("level", "level"), ("auditID", "audit_id"), ("stage", "stage"), ("requestURI", "request_uri"), ("verb", "verb")))
EVENT_COLUMNS = [c for _, c, _ in HEAD + USER + IMPERSONATED + OBJECT_REF + STATUS] + [
    "source_ips", "user_agent", "request_object", "response_object", "request_received_timestamp", "stage_timestamp", "annotations", "shape", "raw",
    "form", "form_values", "redaction", "faults",
]  # fmt: skip


def members(row, fields):
    """Rule 3: a member whose column is null is left out."""
    return ['"%s":%s' % (key, write(row[column])) for key, column, write in fields if row.get(column) is not None]


def render_event(row):
    """Returns the record that the columns of an event give, byte by byte as kube-apiserver would
    write it."""
    out = members(row, HEAD) + ['"user":{%s}' % ",".join(members(row, USER))]
    if members(row, IMPERSONATED):
        out.append('"impersonatedUser":{%s}' % ",".join(members(row, IMPERSONATED)))
    out += members(row, (("sourceIPs", "source_ips", go_strings), ("userAgent", "user_agent", go_string)))
    for name, fields, first in (("objectRef", OBJECT_REF, []), ("responseStatus", STATUS, ['"metadata":{}'])):
        if members(row, fields):
            out.append('"%s":{%s}' % (name, ",".join(first + members(row, fields))))
    out += members(row, (("requestObject", "request_object", same), ("responseObject", "response_object", same)))
    for key, column in (("requestReceivedTimestamp", "request_received_timestamp"), ("stageTimestamp", "stage_timestamp")):
        out.append('"%s":%s' % (key, "null" if row.get(column) is None else '"%s"' % utc_time(row[column])))
    out += members(row, (("annotations", "annotations", same),))
    shape = DEFAULT_SHAPE if row.get("shape") is None else row["shape"]
    return ("{" + shape + ",".join(out) + "}").encode()


# Forms and marks: format.md, Forms, Redaction, Faults.


FORM_BYTES_MAX, FORM_HOLES_MAX, FORM_DEPTH_MAX, FORM_REGIONS_MAX = 16 << 10, 128, 32, 3
FORM_ITEMS_MAX, FORM_ITEMS_BYTES_MAX, LIST_INDENT_MAX = 64, 64 << 10, 64
FORMS_REMEMBERED = 256
REDACTED_PATHS_MAX, REDACTION_BYTES_MAX, PATH_BYTES_MAX, FAULTS_MAX = 256, 64 << 10, 512, 64
TIME_MIN, TIME_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
UNREAD = {
    "too_deep", "too_long", "not_utf8", "not_json", "wrong_type", "not_a_time", "unknown_level", "unknown_stage", "duplicate_member",
}  # fmt: skip
STYLES = {
    "go": "html lines short",
    "go-old": "html lines",
    "go-plain": "lines short",
    "go-plain-old": "lines",
    "json": "short",
    "json-upper": "short upper",
    "json-delete": "short delete",
    "json-slash": "short slash",
    "json-slash-upper": "short slash upper",
    "json-slash-delete": "short slash delete",
    "ascii": "short delete other",
    "ascii-upper": "short upper other",
    "ascii-slash": "short slash other",
}
ESCAPED_TOO = {"html": "<>&", "lines": "\u2028\u2029", "slash": "/", "delete": "\x7f", "other": "\x80-\U0010ffff"}
KINDS = {go_string: "text", go_strings: "list", same: "json", str: "integer"}
CONTAINERS = {"user": USER, "impersonatedUser": IMPERSONATED, "objectRef": OBJECT_REF, "responseStatus": STATUS}
MAPPED = {column: (name, key, KINDS[write]) for name, table in ((None, HEAD), *CONTAINERS.items()) for key, column, write in table}
MAPPED.update(
    source_ips=(None, "sourceIPs", "list"),
    user_agent=(None, "userAgent", "text"),
    request_object=(None, "requestObject", "json"),
    response_object=(None, "responseObject", "json"),
    annotations=(None, "annotations", "json"),
    request_received_timestamp=(None, "requestReceivedTimestamp", "time"),
    stage_timestamp=(None, "stageTimestamp", "time"),
)
# Names, in lower case, that a member of another object than the event may not have.
EVENT_NAMES = {
    "auditid", "apiversion", "requesturi", "verb", "impersonateduser", "sourceips", "objectref", "responsestatus", "requestobject", "responseobject",
    "requestreceivedtimestamp", "stagetimestamp",
}  # fmt: skip
# Other members that may have the level, in an event that OpenShift's log forwarder has changed.
LEVEL_ELSEWHERE = ("k8s_audit_level", "openshift_audit_level")
TIME_CODEC = re.compile(
    r"([0-9]|trim|threes|sixes)(Z|\+00:00|\+0000)|s\.([0-9]|trim|threes|sixes)", re.ASCII
)
LINES_LAYOUT = re.compile(r"(lines|tabs)-(0|[1-9][0-9]?)-(0|[1-9][0-9]?)", re.ASCII)
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
ESCAPE = re.compile(r'\\(?:["/bfnrt]|u[0-9a-fA-F]{4})', re.ASCII)
HIDDEN = ("\\u005c", "\\u007b")


class BadForm(Exception):
    """A template that is not a form, or a row that its form cannot render. The argument is the
    class of the fault."""


def ascii_lower(text):
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def escaper(style):
    flags = STYLES[style].split()
    pattern = re.compile('[\x00-\x1f"\\\\%s]' % "".join(ESCAPED_TOO.get(flag, "") for flag in flags))
    short = {c: e for c, e in ESCAPES.items() if "short" in flags or c not in "\b\f"}
    short["/"] = "\\/"
    digits = "\\u%04X" if "upper" in flags else "\\u%04x"

    def escape(match):
        code = ord(match[0])
        if match[0] in short:
            return short[match[0]]
        if code <= 0xFFFF:
            return digits % code
        return digits % (0xD7C0 + (code >> 10)) + digits % (0xDC00 + (code & 0x3FF))

    return lambda text: pattern.sub(escape, text)


ESCAPERS = {style: escaper(style) for style in STYLES}


def spell_list(escape, layout, items):
    if any(item is None for item in items):
        raise BadForm("null_item")
    items = ['"%s"' % escape(item) for item in items]
    if layout == "compact":
        return "[%s]" % ",".join(items)
    if layout == "spaced":
        return "[%s]" % ", ".join(items)
    if layout == "padded":
        return "[ %s ]" % ", ".join(items) if items else "[ ]"
    fill, before, close = layout
    if not items:
        return "[]"
    return "[\n%s\n%s]" % (",\n".join(fill * before + item for item in items), fill * close)


def spell_time(codec, micros):
    if not TIME_MIN <= micros <= TIME_MAX:
        raise BadForm("inexact")
    if codec in ("s", "ms"):
        count, rest = divmod(micros, unit_of(codec))
        if rest:
            raise BadForm("inexact")
        return str(count)
    decimals, zone = codec
    text = utc_time(micros)
    digits = text[20:26] if zone else "%06d" % (abs(micros) % 1_000_000)
    if decimals == "trim":
        kept = digits.rstrip("0")
    elif decimals == "threes":
        kept = next(digits[:n] for n in (0, 3, 6) if not digits[n:].strip("0"))
    elif decimals == "sixes":
        kept = digits if digits.strip("0") else ""
    else:
        n = int(decimals)
        if digits[n:].strip("0"):
            raise BadForm("inexact")
        kept = digits[:n].ljust(n, "0")
    decimals = "." + kept if kept else ""
    if not zone:
        return "%s%d%s" % ("-" if micros < 0 else "", abs(micros) // 1_000_000, decimals)
    return '"%s%s%s"' % (text[:19], decimals, zone)


def unit_of(codec):
    """Returns the unit of the last digit that this codec writes of a time, in microseconds."""
    if codec in ("s", "ms"):
        return 1_000_000 if codec == "s" else 1000
    return 10 ** max(0, 6 - int(codec[0])) if codec[0].isdigit() else 1


def parse_time_codec(name):
    """Returns the codec of a time: `s`, `ms`, or (decimals, zone), where seconds with decimals have
    no zone. Raises BadForm if there is no such codec."""
    if name in ("s", "ms"):
        return name
    match = TIME_CODEC.fullmatch("6Z" if name is None else name)
    if not match:
        raise BadForm("unknown_codec")
    return match[1] or match[3], match[2]


def copier(codec):
    """Returns the function that writes a copy of a time with this codec."""
    unit = unit_of(codec)
    return lambda micros: spell_time(codec, micros - micros % unit)


def parse_codec(kind, codec):
    """Returns the function that writes a value of this kind with this codec. Raises BadForm if
    there is no such codec."""
    if kind in ("integer", "json"):
        if codec is not None:
            raise BadForm("unknown_codec")
        return str if kind == "integer" else same
    if kind == "time":
        codec = parse_time_codec(codec)
        return lambda value: spell_time(codec, value)
    style, comma, layout = ("go" if codec is None else codec).partition(",")
    if style not in STYLES or comma and kind == "text":
        raise BadForm("unknown_codec")
    escape = ESCAPERS[style]
    if kind == "text":
        return lambda value: '"%s"' % escape(value)
    if not comma:
        layout = "compact"
    elif layout not in ("compact", "spaced", "padded"):
        match = LINES_LAYOUT.fullmatch(layout)
        if not match or int(match[2]) > LIST_INDENT_MAX or int(match[3]) > LIST_INDENT_MAX:
            raise BadForm("unknown_codec")
        layout = " " if match[1] == "lines" else "\t", int(match[2]), int(match[3])
    return lambda value: spell_list(escape, layout, value)


class FormReader:
    """Reads a template: the text of a record in which holes (`${...}`) stand for the values of
    columns. format.md, Forms, has the grammar. With `form` false, reads an item of `form_values`;
    in an item, a dollar sign has no special meaning.

    `parts` is the template as a list of (kind, value):

    - `literal`: a text that is copied;
    - `column`: (column, function that writes its value);
    - `copy`: (column of a time, function that writes a copy of it);
    - `item`: where in the record the next item of `form_values` goes (see item_fits);
    - `open`: the start of a region, a part that is written as one string; the value is the function
      that escapes the text;
    - `close`: the end of a region; the value is None.
    """

    def __init__(self, text, form=True):
        self.text, self.form, self.at = text, form, 0
        self.parts, self.literal = [], []
        self.holes = self.items = self.depth = self.regions = 0
        self.columns, self.event, self.level_at = set(), None, None
        self.copied = set()
        self.members = []  # [index of the object in `objects`, name, kind of the value]
        # For each object: [the member whose value it is, or None; index of its first part; index
        # after its last part].
        self.objects = []

    def parse(self):
        if len(self.text.encode()) > FORM_BYTES_MAX:
            raise BadForm("too_long")
        self.document()
        if self.peek() is not None:
            raise BadForm("hole" if self.peek() == "hole" and self.hole()[0] == "close" else "not_json")
        self.end_literal()
        if self.event is None:
            raise BadForm("no_column")
        if self.copied - self.columns:
            raise BadForm("not_copied")
        self.judge_names()
        return self

    def peek(self):
        """Returns None at the end of the text, `hole` at the start of a hole, and otherwise the
        next character."""
        if self.at >= len(self.text):
            return None
        c = self.text[self.at]
        return "hole" if self.form and c == "$" and self.text[self.at + 1 : self.at + 2] != "$" else c

    def take(self):
        c = self.text[self.at]
        self.literal.append(c)
        self.at += 2 if self.form and c == "$" else 1
        return c

    def take_if(self, wanted):
        if self.peek() == wanted:
            self.take()
            return True
        return False

    def need(self, wanted):
        if not self.take_if(wanted):
            raise BadForm("not_json")

    def end_literal(self):
        if self.literal:
            self.parts.append(("literal", "".join(self.literal)))
            self.literal = []

    def hole(self):
        end = self.text.find("}", self.at, self.at + 64)
        if end < 0 or not self.text.startswith("${", self.at) or len(self.text[self.at : end].encode()) >= 64:
            raise BadForm("hole")
        inside = self.text[self.at + 2 : end]
        if inside == "":
            return "item", None, end + 1
        if inside == ">":
            return "close", None, end + 1
        if inside.startswith("<"):
            if inside[1:] not in STYLES:
                raise BadForm("unknown_codec")
            return "open", ESCAPERS[inside[1:]], end + 1
        is_copy, inside = inside.startswith("="), inside.removeprefix("=")
        column, colon, codec = inside.partition(":")
        if column not in MAPPED:
            raise BadForm("unknown_column")
        if is_copy:
            if MAPPED[column][2] != "time":
                raise BadForm("not_copied")
            return "copy", (column, copier(parse_time_codec(codec if colon else None))), end + 1
        return "column", (column, parse_codec(MAPPED[column][2], codec if colon else None)), end + 1

    def put(self, kind, value, end):
        self.holes += 1
        self.items += kind == "item"
        if self.holes > FORM_HOLES_MAX or self.items > FORM_ITEMS_MAX:
            raise BadForm("too_many_holes")
        self.end_literal()
        self.parts.append((kind, value))
        self.at = end

    def deeper(self):
        self.depth += 1
        if self.depth > FORM_DEPTH_MAX:
            raise BadForm("too_deep")

    def document(self):
        self.around()
        if self.peek() == "{":
            self.object(None)
        elif self.peek() == "hole" and self.hole()[0] == "open":
            self.region()
        else:
            raise BadForm("not_json")
        self.around()

    def around(self):
        while self.peek() not in (None, "{"):
            if self.peek() != "hole":
                self.take()
                continue
            kind, _, end = self.hole()
            if kind in ("column", "copy"):
                raise BadForm("misplaced")
            if kind != "item":
                return
            self.put("item", "around", end)

    def region(self):
        _, escape, end = self.hole()
        self.deeper()
        self.regions += 1
        if self.regions > FORM_REGIONS_MAX:
            raise BadForm("too_deep")
        self.put("open", escape, end)
        self.document()
        if self.peek() is None:
            raise BadForm("hole")
        if self.peek() != "hole" or self.hole()[0] != "close":
            raise BadForm("not_json")
        end = self.hole()[2]
        self.end_literal()
        self.parts.append(("close", None))
        self.at = end
        self.regions -= 1
        self.depth -= 1

    def space(self):
        while self.peek() in (" ", "\n", "\r", "\t"):
            self.take()

    def value(self, member):
        """Reads a value and returns its kind, for judge_names: `column`, `null`, `default` (the
        string, without an escape), (`object`, index in `objects`) or `other`."""
        c, start = self.peek(), self.at
        if c == "hole":
            kind, what, end = self.hole()
            if kind == "column":
                self.column(what[0], member)
                self.put("column", what, end)
                return "column"
            if kind == "close":
                raise BadForm("not_json")
            if kind == "open":
                self.region()
            elif kind == "copy":
                self.copied.add(what[0])
                self.put("copy", what, end)
            else:
                self.put("item", "value", end)
        elif c == "{":
            return "object", self.object(member)
        elif c == "[":
            self.list()
        elif c == '"':
            self.take()
            self.characters()
            self.need('"')
            return "default" if self.text[start : self.at] == '"default"' else "other"
        else:
            word = next((w for w in ("true", "false", "null") if self.text.startswith(w, self.at)), None)
            match = None if word else NUMBER.match(self.text, self.at)
            if not word and not match:
                raise BadForm("not_json")
            for _ in word or match[0]:
                self.take()
            if word == "null":
                return "null"
        return "other"

    def characters(self):
        while self.peek() not in (None, '"'):
            c = self.peek()
            if c == "hole":
                kind, _, end = self.hole()
                if kind != "item":
                    raise BadForm("misplaced")
                self.put("item", "text", end)
            elif c == "{":
                raise BadForm("string")
            elif c < " ":
                raise BadForm("not_json")
            elif c == "\\":
                match = ESCAPE.match(self.text, self.at)
                if match and match[0].lower() in HIDDEN or self.text[self.at + 1 : self.at + 2] == "\\":
                    raise BadForm("string")
                if not match:
                    raise BadForm("not_json")
                for _ in match[0]:
                    self.take()
            else:
                self.take()

    def name(self):
        self.need('"')
        name = []
        while self.peek() != '"':
            c = self.peek()
            if c == "hole":
                self.hole()
                raise BadForm("misplaced")
            if c is None or c < " ":
                raise BadForm("not_json")
            if c == "\\":
                if self.text[self.at + 1 : self.at + 2] != "/":
                    raise BadForm("string")
                self.take()
            name.append(self.take())
        self.take()
        return "".join(name)

    def list(self):
        self.deeper()
        self.take()
        self.space()
        if not self.take_if("]"):
            while True:
                self.value(None)
                self.space()
                if self.take_if("]"):
                    break
                self.need(",")
                self.space()
        self.depth -= 1

    def object(self, member):
        self.deeper()
        number = len(self.objects)
        self.end_literal()
        entry = [member, len(self.parts), None]
        self.objects.append(entry)
        self.take()
        self.space()
        if not self.take_if("}"):
            while True:
                named = [number, self.name(), "other"]
                self.space()
                self.need(":")
                self.space()
                self.members.append(named)
                named[2] = self.value(named)
                self.space()
                if self.take_if("}"):
                    break
                self.need(",")
                self.space()
        self.depth -= 1
        self.end_literal()
        entry[2] = len(self.parts)
        return number

    def column(self, column, member):
        """Checks the place of a column's hole. It must be the value of the member with the column's
        key. All columns must belong to the same object, the event: to it directly, or to its
        `user`, `impersonatedUser`, `objectRef` or `responseStatus`."""
        if column in self.columns:
            raise BadForm("column_twice")
        container, key, _ = MAPPED[column]
        if member is None or member[1] != key and not (column == "level" and member[1] in LEVEL_ELSEWHERE):
            raise BadForm("misplaced")
        event = member[0]
        if container is not None:
            outer = self.objects[event][0]
            event = outer[0] if outer is not None and outer[1] == container else None
        if event is None or self.event not in (None, event):
            raise BadForm("misplaced")
        self.event = event
        self.columns.add(column)
        if column == "level":
            self.level_at = member[1]

    def judge_names(self):
        seen = set()
        for number, name, value in self.members:
            lower, outer = ascii_lower(name), self.objects[number][0]
            container = outer[1] if outer is not None and outer[0] == self.event and outer[1] in CONTAINERS else None
            if number == self.event or container:
                own = next((key for c, key, _ in MAPPED.values() if c == container and key.lower() == lower), None)
                held = next((key for key in CONTAINERS if key.lower() == lower), None) if container is None else None
                right = own or held
                if value == "null":
                    good = right is None or right == name
                elif value == "column":
                    good = True
                elif number == self.event and lower in LEVEL_ELSEWHERE:
                    good = self.level_at is not None and (lower, self.level_at) != LEVEL_ELSEWHERE
                elif value == "default" and number == self.event and name == "level":
                    good = self.level_at in LEVEL_ELSEWHERE
                elif value in ("default", "other"):
                    good = right is None
                else:
                    good = own is None and (held is None or held == name)
                if not good or container and own is None and lower != "apiversion" and lower in EVENT_NAMES:
                    raise BadForm("named")
            elif lower in EVENT_NAMES:
                raise BadForm("named")
            if (number, lower) in seen:
                raise BadForm("name_twice")
            seen.add((number, lower))


def item_fits(item, place):
    """Returns True if an item of `form_values` is allowed at `place`: `around` (outside the
    document), `text` (in a string) or `value`."""
    if place == "around":
        return "{" not in item
    reader = FormReader(item, form=False)
    try:
        if place == "text":
            reader.characters()
        else:
            reader.value(None)
            reader.judge_names()
    except BadForm:
        return False
    return reader.peek() is None


FORMS = {}


def parse_form(template):
    """Returns the FormReader of a template. Raises BadForm. The latest results are kept in
    FORMS."""
    if template not in FORMS:
        if len(FORMS) >= FORMS_REMEMBERED:
            FORMS.clear()
        try:
            FORMS[template] = FormReader(template).parse()
        except BadForm as e:
            FORMS[template] = e
    if isinstance(FORMS[template], BadForm):
        raise BadForm(*FORMS[template].args)
    return FORMS[template]


def render_form(row, event_only=False):
    """Returns the bytes that the form of a row gives. Raises BadForm. With `event_only`, returns
    only the event, from its `{` to its `}` and not escaped as part of a region. The columns are
    compared with these bytes."""
    form = parse_form(row["form"])
    if row.get("raw") is not None:
        raise BadForm("beside_raw")
    if row.get("shape") is not None:
        raise BadForm("beside_shape")
    there = {column for column in MAPPED if row.get(column) is not None}
    if there - form.columns:
        raise BadForm("column_left_out")
    if form.columns - there:
        raise BadForm("column_null")
    items = row.get("form_values")
    if (items is None) != (form.items == 0) or len(items or ()) != form.items:
        raise BadForm("items")
    if any(item is None for item in items or ()) or sum(len(item.encode()) for item in items or ()) > FORM_ITEMS_BYTES_MAX:
        raise BadForm("item")
    _, first, last = form.objects[form.event] if event_only else (None, 0, len(form.parts))
    before = sum(kind == "item" for kind, _ in form.parts[:first])
    rest, stack = iter((items or [])[before:]), [([], None)]
    for kind, value in form.parts[first:last]:
        out = stack[-1][0]
        if kind == "literal":
            out.append(value)
        elif kind in ("column", "copy"):
            out.append(value[1](row[value[0]]))
        elif kind == "item":
            item = next(rest)
            if not item_fits(item, value):
                raise BadForm("item")
            out.append(item)
        elif kind == "open":
            stack.append(([], value))
        else:
            inner, escape = stack.pop()
            stack[-1][0].append('"%s"' % escape("".join(inner)))
    return "".join(stack[0][0]).encode()


def is_pointer(path):
    """A JSON pointer (RFC 6901)."""
    return (
        (path == "" or path[0] == "/")
        and len(path.encode()) <= PATH_BYTES_MAX
        and not re.search("[\x00-\x1f\x7f]|~(?![01])", path)
    )


def is_redaction(text):
    """Returns True if the text is a redaction mark in its one allowed form."""
    if len(text.encode()) > REDACTION_BYTES_MAX:
        return False
    try:
        mark = parse_json(text.encode())
        dropped, tokenised = mark["dropped"], mark["tokenised"]
        paths = dropped + tokenised
        return (
            list(mark) == ["policy", "dropped", "tokenised"]
            and json.dumps(mark, ensure_ascii=False, separators=(",", ":")) == text
            and re.fullmatch("[0-9a-f]{16}", mark["policy"]) is not None
            and len(paths) <= REDACTED_PATHS_MAX
            and all(isinstance(path, str) and path and is_pointer(path) for path in paths)
            and len(set(paths)) == len(paths)
            and all(sorted(a, key=str.encode) == a for a in (dropped, tokenised))
        )
    except (Malformed, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


REDACTION_TOKEN = re.compile("rt1:[0-9a-f]{8}:[0-9a-f]{32}")


class Members(list):
    """The members of an object, as a list of (name, value). A name may be repeated."""


class Place:
    """A place in a record: what the pointers of a mark say about it, and what was found there."""

    def __init__(self):
        self.said, self.holds, self.fails, self.is_folded, self.inside = None, False, False, False, {}

    def at(self, pointer):
        place = self
        for step in pointer.split("/")[1:]:
            place = place.inside.setdefault(step.replace("~1", "/").replace("~0", "~"), Place())
        return place

    def judge(self, value, is_item=False, is_folded=False):
        """Compares a value, or NOTHING, and everything in it with the mark. If a member is
        repeated, all its values count. An item of a list that was removed is null, and a step
        SOME_ITEMS stands for one or more items of a list."""
        if self.said == "dropped":
            is_so = value is NOTHING or (is_item and value is None)
        elif self.said == "tokenised" and value is not NOTHING and value is not None:
            is_so = isinstance(value, str) and REDACTION_TOKEN.search(value) is not None
        else:
            is_so = None
        self.holds, self.fails, self.is_folded = self.holds or is_so is True, self.fails or is_so is False, self.is_folded or is_folded
        for step, place in self.inside.items():
            if isinstance(value, Members):
                for inner in [v for name, v in value if name == step] or [NOTHING]:
                    place.judge(inner, False, is_folded)
            elif isinstance(value, list) and step == SOME_ITEMS:
                for inner in value:
                    place.judge(inner, True, True)
            elif isinstance(value, list):
                is_there = INDEX.fullmatch(step) and len(step) <= INDEX_DIGITS_MAX and int(step) < len(value)
                place.judge(value[int(step)] if is_there else NOTHING, True, is_folded)
            else:
                place.judge(NOTHING, False, is_folded)

    def differs(self, said):
        """Returns True if the record contradicts a pointer to this place, or to a place inside it,
        in the list `said` of the mark."""
        holds = self.holds if self.is_folded else not self.fails and (self.holds or said == "dropped")
        return (self.said == said and not holds) or any(place.differs(said) for place in self.inside.values())


NOTHING, SOME_ITEMS, INDEX, INDEX_DIGITS_MAX = object(), "-", re.compile("0|[1-9][0-9]*"), 18


def read_marked(text):
    """The value of a JSON text, objects as Members. Raises ValueError if it is not JSON, or is
    nested too deep."""

    def constant(name):
        raise ValueError(name)

    if is_deeper(text, DEPTH_MAX):
        raise ValueError("nested too deep")
    # The values of numbers do not matter here, and numbers may have any length.
    return json.loads(text, object_pairs_hook=Members, parse_int=str.__len__, parse_float=str.__len__, parse_constant=constant)


def mark_differs(mark, record):
    """format.md, Redaction: says how a record differs from its mark, which is well formed. Returns
    None if it does not."""
    root = Place()
    for said in ("dropped", "tokenised"):
        for pointer in mark[said]:
            root.at(pointer).said = said
    try:
        text = record.decode()
        if not text.startswith("{") or not text.endswith("}"):
            raise ValueError("not an object")
        root.judge(read_marked(text))
    except (ValueError, RecursionError):
        return "its record is not the JSON object that a redacted record is"
    if root.differs("dropped"):
        return "its redaction says that a member was dropped, but the member is there"
    if root.differs("tokenised"):
        return "its redaction says that a member was tokenised, but it has no token"
    return None


def are_faults(faults):
    """Returns True if each item is a fault, `<JSON pointer>: <name>`, and no fault occurs twice."""
    return (
        1 <= len(faults) <= FAULTS_MAX
        and len(set(faults)) == len(faults)
        and all(f is not None and ": " in f and f.rpartition(": ")[2] in UNREAD and is_pointer(f.rpartition(": ")[0]) for f in faults)
    )


def check_marks(row):
    """Yields, in words, what is wrong with the columns `form_values`, `redaction` and `faults` of
    an event."""
    if row.get("form") is None and row.get("form_values") is not None:
        yield "it has `form_values` without a form"
    if row.get("redaction") is not None and not is_redaction(row["redaction"]):
        yield "its `redaction` is not a redaction mark"
    if row.get("faults") is not None and not are_faults(row["faults"]):
        yield "its `faults` are not a list of faults"


# The column whose text is the record.
RECORD_TEXT = {"alerts": "ocsf", "activity": "body"}


def record_of(table, row):
    """Returns the record of a row: proof.md, What a record is."""
    if table in ("alerts", "activity"):
        return (row.get(RECORD_TEXT[table]) or "").encode()
    raw = row.get("raw")
    if table == "rejects":
        return raw or b""
    if row.get("form") is not None:
        return render_form(row)
    return raw if raw is not None else render_event(row)


ACTIVITY_KINDS = ("question", "triage", "case", "review", "break_glass", "rollup", "clock")
ACTIVITY_BYTES_MAX, ACTIVITY_NAME_BYTES_MAX, ACTIVITY_DEPTH_MAX = 1 << 20, 1000, 127
ACTIVITY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def depth_of(value):
    """How deep lists and objects are nested, without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        level = [v for item in level for v in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


def activity_differs(row):
    """format.md, `activity`: says if the body is not an activity record, or the columns differ from
    its members. Returns None if neither is so."""
    body = row.get("body")

    def is_name(name):
        if not isinstance(name, str):
            return False
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            return False
        return 1 <= length <= ACTIVITY_NAME_BYTES_MAX and name == name.strip() and not any(unicodedata.category(c) == "Cc" for c in name)

    try:
        if body is None or len(body.encode()) > ACTIVITY_BYTES_MAX:
            raise Malformed("it is missing or too long")
        value = parse_json(body)
        time = value.get("time") if isinstance(value, dict) else None
        at = micros(time) if isinstance(time, str) and ACTIVITY_TIME.fullmatch(time) else None
        if at is None or value.get("kind") not in ACTIVITY_KINDS or not is_name(value.get("principal")) or depth_of(value) > ACTIVITY_DEPTH_MAX:
            raise Malformed("it is not a record")
        if "subject" in value and not is_name(value["subject"]):
            raise Malformed("it is not a record")
    except (Malformed, TypeError):
        return "its body is not an activity record"
    said = value["kind"], at, value["principal"], value.get("subject")
    return None if said == tuple(row.get(c) for c in ("kind", "time", "principal", "subject")) else "its columns differ from its body"


def check_rows(table, file, add, committed, where, report, meaning=None):
    """Checks points 8 and 16 for one file, row by row. committed: the time of its commit, in
    microseconds."""
    time_column = TIME_COLUMN[table]
    wanted = {"events": EVENT_COLUMNS + ["authz_decision", "authz_reason"], "rejects": ["raw"], "alerts": ["ocsf"], "activity": ["body", "kind", "principal", "subject"]}[table]
    wanted = wanted + [time_column, "source", "source_offset"] + ([c for _, columns, _ in ALERT_COLUMNS for c in columns] if table == "alerts" else [])
    tree, offsets, rows, extremes, off_day, differing = MerkleTree(), {}, 0, {}, 0, Differing(where, report)
    redacted = 0
    day = (datetime.date.fromisoformat(add.path[5:15]) - datetime.date(1970, 1, 1)).days * DAY_US
    # A row with an implausible time is stored under the day on which it arrived. So such rows are
    # allowed only if the commit was made at most 7 days after the file's day.
    arrived_then = committed < day + DAY_US + 7 * DAY_US
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        check_columns(table, parquet.schema_arrow)
        there = set(parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=4096, columns=[c for c in dict.fromkeys(wanted) if c in there]):
            columns = {}
            for name, column in zip(batch.schema.names, batch.columns):
                if pyarrow.types.is_timestamp(column.type):
                    column = column.cast(pyarrow.timestamp("us", tz=column.type.tz)).cast(pyarrow.int64())
                columns[name] = column.to_pylist()
            for i in range(batch.num_rows):
                row = {name: values[i] for name, values in columns.items()}
                try:
                    record, fault = record_of(table, row), None
                except BadForm as e:
                    record, fault = b"", "its form does not give a record: %s" % e
                mark = row.get("redaction") if table == "events" else None
                if add.record_root is not None:
                    tree.add(record_hash(mark, record))
                if table == "events":
                    redacted += mark is not None
                if table == "activity":
                    difference = activity_differs(row)
                    if difference:
                        differing.add(rows + i, difference)
                if meaning is not None:
                    for detail in check_marks(row) if table == "events" else ():
                        differing.add(rows + i, detail)
                    if fault:
                        differing.add(rows + i, fault)
                    else:
                        if mark is not None and is_redaction(mark):
                            detail = mark_differs(parse_json(mark), record)
                            if detail:
                                differing.add(rows + i, detail)
                        differing.row(rows + i, meaning(row, record))
                at, source, offset = row.get(time_column), row.get("source"), row.get("source_offset")
                for name, value in ((time_column, at), ("source", source), ("source_offset", offset)):
                    if value is not None:
                        low, high = extremes.get(name, (value, value))
                        extremes[name] = min(low, value), max(high, value)
                if source is not None and offset is not None:
                    first, last, count = offsets.get(source, (offset, offset, 0))
                    offsets[source] = min(first, offset), max(last, offset), count + 1
                if at is not None and not day <= at < day + DAY_US and not (arrived_then and (at < PLAUSIBLE_FROM_US or at > day + DAY_US)):
                    if not off_day:
                        report.finding("statistics", "%s, row %d" % (where, rows + i), "its time is %s, of another day than the file" % utc_time(at))
                    off_day += 1
            rows += batch.num_rows
    except (pyarrow.ArrowException, Malformed, ValueError, TypeError, AttributeError, OverflowError, OSError) as e:
        report.finding("rows", where, "not a Parquet file of the table: %s" % shown(e))
        return
    finally:
        differing.end()
    report.count("rows", rows)
    if redacted:
        report.count("redacted", redacted)
    expected = add.rows if add.rows is not None else add.stats.get("numRecords")
    if expected is not None and rows != expected:
        report.finding("rows", where, "%d rows, and the commit says %d" % (rows, expected))
    if add.record_root is not None and tree.root() != add.record_root:
        report.finding("record_changed", where, "its records do not give the `record_root` of the tag")
    if add.offsets is not None and {k: list(v) for k, v in offsets.items()} != add.offsets:
        report.finding("offsets", where, "the tag `offsets` is not that of its rows")
    for end, name in ((0, "minValues"), (1, "maxValues")):
        for column in (time_column, "source", "source_offset"):
            value = extremes[column][end] if column in extremes else None
            if column == time_column and not all(TIME_US_FIRST <= time < TIMESTAMP_MS_END * 1000 for time in extremes.get(column, ())):
                value = None  # statistics cannot express one of the times, and the writer leaves out both
            said = add.stats.get(name, {}).get(column)
            if not same_statistic(column == time_column, value, said):
                report.finding("statistics", where, "%s of %s is %s, and in the rows %s" % (name, column, shown(said), shown(value)))


def same_statistic(is_time, value, said):
    if is_time and value is not None and isinstance(said, str):
        match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z", said, re.ASCII)
        return bool(match) and "%s.%sZ" % (match[1], (match[2] or "").ljust(6, "0")) == utc_time(value)
    return type(value) is type(said) and value == said


# What a record says, point 16. format.md, What a record says.


EVENTS_FORMAT = 2  # the newest `eventsFormat` (in commitInfo) whose rules this program has
RECORD_BYTES_MAX = 64 << 20
DEPTH_MAX = 128
ROWS_TOLD_MAX = 10  # for one file: how many rows whose columns differ are reported
REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 1 << 16, 4096  # how many parsed texts are remembered, and how many bytes such a text may have
LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
SHAPE_GOOGLE = "google.cloud.audit.AuditLog"
DECISION, REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
WHITE = " \t\r\n"
SKIP = re.compile("[ \t\r\n]*")
QUOTE = re.compile('[ \t\r\n]*"')
COLON = re.compile("[ \t\r\n]*:[ \t\r\n]*")
PLAIN_NAME = re.compile(r'[ \t\r\n]*"([^"\\\x00-\x1f]*)"[ \t\r\n]*:[ \t\r\n]*')
NEXT = re.compile("[ \t\r\n]*([,}])")
STRING = re.compile('"[^"]*"')
NO_BRACKET = re.compile(r"[^\[\]{}]+")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")
RFC_3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
LIKE_RFC_3339 = re.compile(RFC_3339.pattern.replace("[Tt]", "[Tt ]").replace("):(\\d\\d))", "):?(\\d\\d))"), re.ASCII)


class NoRecord(Exception):
    """The bytes are not a record of their table. The exception does not repeat any of the bytes."""


def not_json(_):
    raise NoRecord


# The scanner returns numbers as bytes: their text, of any length. Callers check first that the text
# is nested at most DEPTH_MAX deep.
SCAN = json.decoder.JSONDecoder(parse_int=str.encode, parse_float=str.encode, parse_constant=not_json).scan_once


def value_at(text, at):
    """The JSON value that starts at `at`, and where it ends."""
    try:
        return SCAN(text, at)
    except (StopIteration, ValueError):
        raise NoRecord


def members_at(text, at):
    """Reads the object that starts at `at`. Returns (members, where the object ends). Each member
    is (name, where its quoted name starts, value, where the value starts, where the value ends)."""
    found, at = [], SKIP.match(text, at + 1).end()
    if text.startswith("}", at):
        return found, at + 1
    while True:
        plain = PLAIN_NAME.match(text, at)
        if plain:
            name, quote, start = plain[1], plain.start(1) - 1, plain.end()
        else:
            name, quote, start = name_at(text, at)
        try:
            value, end = SCAN(text, start)
        except (StopIteration, ValueError):
            raise NoRecord
        found.append((name, quote, value, start, end))
        if text.startswith(",", end):
            at = end + 1
            continue
        after = NEXT.match(text, end)
        if not after:
            raise NoRecord
        at = after.end()
        if after[1] == "}":
            return found, at


def name_at(text, at):
    """Reads the name of the member that starts at `at`. Returns (name, where its quoted name
    starts, where its value starts)."""
    quote = QUOTE.match(text, at)
    if not quote:
        raise NoRecord
    try:
        name, end = json.decoder.scanstring(text, quote.end(), True)
    except ValueError:
        raise NoRecord
    colon = COLON.match(text, end)
    if not colon:
        raise NoRecord
    return name, quote.end() - 1, colon.end()


def is_deeper(text, most):
    """Returns True if more than `most` brackets outside strings are open at once. For text that is
    not JSON, may return True even if fewer are open."""
    if text.count("{") + text.count("[") <= most:
        return False
    rest = NO_BRACKET.sub("", STRING.sub("", text.replace("\\\\", "").replace('\\"', "")))
    rest = rest.replace("{", "[").replace("}", "]")
    for _ in range(most):
        rest = rest.replace("[]", "")  # removes the innermost brackets
        if not rest:
            return False
    return True


def microseconds(text, pattern=RFC_3339):
    """Returns the microseconds since 1970 of an RFC 3339 time. Digits after the sixth decimal are
    ignored."""
    match = pattern.fullmatch(text)
    if not match:
        raise NoRecord
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    hours, minutes = int(match[9] or 0), int(match[10] or 0)
    if hours > 23 or minutes > 59:
        raise NoRecord
    try:
        # Python has no year 0. The year 400 is used instead, because both are leap years.
        at = datetime.datetime(year or 400, month, day, hour, minute, second) - datetime.datetime(1970, 1, 1)
    except ValueError:
        raise NoRecord
    past = (0 if year else 146_097 * 86_400) + (60 if match[8] != "-" else -60) * (60 * hours + minutes)
    return (at // datetime.timedelta(seconds=1) - past) * 1_000_000 + int((match[7] or "").ljust(6, "0")[:6])


def is_unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Object:
    """An object in a JSON text. If a name is repeated, the last member counts. A value of the wrong
    type raises NoRecord."""

    def __init__(self, text, at, is_odd, values=None):
        self.text, self.start, self.is_odd = text, at, is_odd  # if it is odd, it has surrogate escapes, so each string is checked
        self.spans = None
        if values is None:
            self.list, self.end = members_at(text, at)
            values = {name: value for name, _, value, _, _ in self.list}
        else:
            self.list = None  # where the members are; looked up when it is first needed
        self.values, self.value = values, values.get
        if is_odd:
            for name in values:
                self.unicode(name)

    def span(self, name):
        if self.spans is None:
            if self.list is None:
                self.list, self.end = members_at(self.text, self.start)
            self.spans = {name: (start, end) for name, _, _, start, end in self.list}
        return self.spans[name]

    def unicode(self, string):
        if self.is_odd and not is_unicode(string):
            raise NoRecord
        return string

    def string(self, name):
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise NoRecord
        return self.unicode(value)

    def if_string(self, name):
        try:
            return self.string(name)
        except NoRecord:
            return None

    def strings(self, name):
        value = self.value(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise NoRecord
        return None if value is None else list(map(self.unicode, value))

    def time(self, name):
        value = self.string(name)
        return None if value is None else microseconds(value)

    def body(self, name):
        """Returns the value as it is written in the text."""
        return None if self.value(name) is None else self.text[slice(*self.span(name))]

    def json(self, name):
        """Like `body`, but the value, if there is one, must be an object."""
        if not isinstance(self.value(name), (dict, type(None))):
            raise NoRecord
        return self.body(name)

    def object(self, name):
        """Returns the object of that name; an object without members if there is none."""
        value = self.value(name)
        if value is None:
            return NO_MEMBERS
        if not isinstance(value, dict):
            raise NoRecord
        return Object(self.text, self.span(name)[0], self.is_odd, value)

    def integer(self, name, bits):
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, bytes) or not INTEGER.fullmatch(value) or not -(1 << bits - 1) <= int(value) < 1 << bits - 1:
            raise NoRecord
        return int(value)

    def is_true(self, name):
        return self.value(name) is True

    def has(self, name):
        return name in self.values

    def known(self, name, names):
        value = self.string(name)
        if value is not None and value not in names:
            raise NoRecord
        return value

    def level(self):
        return self.known("level", LEVELS)

    def repeats(self):
        """Returns True if a name is repeated."""
        if self.list is None:
            self.list, self.end = members_at(self.text, self.start)
        return len(self.list) != len(self.values)

    def before(self, quote):
        return self.text[self.start + 1 : quote]


NO_MEMBERS = Object("{}", 0, False)


def document(text):
    """The object that a text consists of, apart from white space around it."""
    if "\0" in text or is_deeper(text, DEPTH_MAX):
        raise NoRecord
    start = SKIP.match(text).end()
    if not text.startswith("{", start):
        raise NoRecord
    found = Object(text, start, SURROGATE.search(text) is not None)
    if SKIP.match(text, found.end).end() != len(text):
        raise NoRecord
    return found


EVENT_STRINGS = [(key, column) for key, column, _ in HEAD if key not in ("level", "stage")] + [("userAgent", "user_agent")]
EVENT_MEMBERS = {key for key, _ in EVENT_STRINGS} | {
    "level", "stage", "user", "impersonatedUser", "sourceIPs", "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp", "stageTimestamp",
    "annotations",
}  # fmt: skip


NOT_BESIDE = EVENT_MEMBERS | {"kind", "apiVersion", "metadata", "authenticationMetadata"}  # what an API server writes


def is_event(found):
    """Returns True if an object is an audit event, judged only by its `kind`, `apiVersion` and
    `auditID`."""
    kind, version = found.value("kind"), found.if_string("apiVersion")
    if kind is not None and kind != "Event" or version is not None and not version.startswith("audit.k8s.io/"):
        return False
    return found.if_string("auditID") is not None or (kind is not None and version is not None)


def event_columns(event):
    """The columns that an audit event gives."""
    said = {column: event.string(key) for key, column in EVENT_STRINGS}
    said.update(level=event.level(), stage=event.known("stage", STAGES))
    user, other = event.object("user"), event.object("impersonatedUser")
    said.update(user_name=user.string("username"), user_uid=user.string("uid"), user_groups=user.strings("groups"), user_extra=user.json("extra"))
    said.update(impersonated_user_name=other.string("username"), impersonated_user_groups=other.strings("groups"), impersonated_user_extra=other.json("extra"))
    reference, status, annotations = event.object("objectRef"), event.object("responseStatus"), event.object("annotations")
    said.update((column, reference.string(key)) for key, column, _ in OBJECT_REF)
    said.update(status_columns(status), source_ips=event.strings("sourceIPs"), annotations=event.json("annotations"))
    said.update(request_object=event.body("requestObject"), response_object=event.body("responseObject"))
    said.update(request_received_timestamp=event.time("requestReceivedTimestamp"), stage_timestamp=event.time("stageTimestamp"))
    said.update(authz_decision=annotations.string(DECISION), authz_reason=annotations.string(REASON))
    return said


def status_columns(status):
    said = {"response_%s" % key: status.string(key) for key in ("status", "reason", "message")}
    return dict(said, response_details=status.json("details"), response_code=status.integer("code", 32))


def shape_of(event):
    """Returns the text between `{` and the first member that has a column. Returns None if this
    text is DEFAULT_SHAPE, which it is in an event that kube-apiserver writes as one line."""
    quotes = (quote for name, quote, *_ in event.list if name in EVENT_MEMBERS)
    start = next(quotes, None)
    shape = event.before(event.end - 1 if start is None else start)
    return None if shape == DEFAULT_SHAPE else shape


def is_cloud(found):
    """Returns True if an object is the wrapper of Azure or of CloudWatch, or a record of Azure."""
    has = found.has
    return has("records") or has("category") and has("properties") or has("logEvents") and has("messageType")


def is_google(entry):
    """Returns True if an object that is not an audit event is an entry of Google Cloud Logging, and
    False if it is another object, such as another cloud's wrapper of events."""
    has = entry.has
    if has("kind") or has("auditID") or is_cloud(entry):
        return False
    return has("logName") and (has("protoPayload") or has("insertId") and (has("textPayload") or has("jsonPayload")))


AUDIT_LOG = re.compile(r".*/logs/(cloud|external)audit\.googleapis\.com%2F(?:activity|data_access)", re.DOTALL)


def is_audit_log(name, service):
    """Returns True if a log of this name has the audit entries of clusters: of those in Google Cloud,
    or of those elsewhere that Google manages."""
    log = AUDIT_LOG.fullmatch(name)
    return bool(log) and (service == "k8s.io" or log[1] == "external" and service == "anthosgke.googleapis.com")


def google_columns(entry):
    """The columns that an entry of Google Cloud Logging gives."""
    if not is_google(entry):
        raise NoRecord
    payload, resource = entry.object("protoPayload"), entry.object("resource")
    if entry.deep:
        google_without_deep_bodies(payload)
    if (
        not is_audit_log(entry.string("logName") or "", payload.string("serviceName"))
        or resource.string("type") != "k8s_cluster"
        or payload.string("@type") != "type.googleapis.com/google.cloud.audit.AuditLog"
    ):
        raise NoRecord
    operation, caller, authentication = entry.object("operation"), payload.object("requestMetadata"), payload.object("authenticationInfo")
    said, address, method = {"shape": SHAPE_GOOGLE}, caller.string("callerIp"), payload.string("methodName")
    said["audit_id"] = operation.string("id")
    if said["audit_id"] is None:
        said["audit_id"] = entry.string("insertId")
    said["stage"] = "ResponseComplete" if operation.is_true("last") else "ResponseStarted" if operation.is_true("first") else None
    said["verb"] = None if method is None else method.split(".")[-1]
    said.update(user_name=authentication.string("principalEmail"), source_ips=None if address is None else [address])
    said.update(user_agent=caller.string("callerSuppliedUserAgent"), request_object=payload.body("request"), response_object=payload.body("response"))
    said.update(annotations=entry.json("labels"), stage_timestamp=entry.time("timestamp"))
    name = payload.string("resourceName")
    if name is None and entry.version != 1:
        google_method(payload.if_string("methodName") or "", said)
    google_reference(name or "", said)
    response = payload.if_object("response")
    if is_status(response, entry.version):
        said.update(status_columns(response))
    if said.get("response_message") is None:
        said["response_message"] = payload.object("status").string("message")
    if said.get("response_status") is None:
        said["response_status"] = payload.failed()
    labels = entry.object("labels")
    said.update(authz_reason=labels.string(REASON), authz_decision=labels.string(DECISION))
    if said["authz_decision"] is None:
        said["authz_decision"] = google_granted(payload)
    if said["user_name"] is None and entry.version != 1:
        said["user_name"] = authentication.string("principalSubject")
        if said["user_name"] is None and google_is_anonymous(payload.body("authenticationInfo"), said):
            said["user_name"] = "system:anonymous"
    return said


def google_without_deep_bodies(payload):
    """Takes bodies that are nested too deep as unreadable. No other member may be too deep."""
    if payload is NO_MEMBERS or payload.is_odd:
        raise NoRecord
    if any(2 + depth > DEPTH_MAX for name, depth in payload.depths if name not in ("request", "response")):
        raise NoRecord
    for name in ("request", "response"):
        start, end, _ = payload.values.get(name, (None, None, None))
        if start is not None and 2 + value_end(payload.data, payload.mask, start)[1] > DEPTH_MAX:
            payload.values[name] = start, end, "too_deep"
            payload.fault(name, "too_deep")


def google_is_anonymous(authentication, said):
    """Returns True if an entry without a principal is of an anonymous request."""
    if (said["authz_reason"] or "").endswith((' to User "system:anonymous"', ' to Group "system:unauthenticated"')):
        return True
    if 'User "system:anonymous" cannot ' in (said["response_message"] or ""):
        return True
    names_nobody = authentication is None or re.fullmatch(r"\{[ \t\r\n]*\}", authentication)
    return bool(names_nobody) and said["authz_decision"] == "allow"


def is_status(response, version):
    """Returns True if a response is a Status, or a failure that does not say what it is."""
    if version != 1 and response is not NO_MEMBERS and not response.first("@type"):
        return response.if_string("status") == "Failure"
    return response.if_string("@type") == "core.k8s.io/v1.Status"


def google_reference(name, said):
    """Fills in the columns of the object from
    `group/version/[namespaces/<namespace>/]resource[/name[/subresource]]`. A name of another form
    is not that of a resource, and fills in nothing."""
    parts = name.split("/")
    if len(parts) < 3 or "" in parts or not re.match("v[0-9]", parts[1]):
        return
    rest, namespace = parts[2:], None
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
            rest = rest[2:]
    rest += [None, None]
    said.update(api_group=None if parts[0] == "core" else parts[0], api_version=parts[1], namespace=namespace)
    said.update(resource=rest[0], name=rest[1], subresource=rest[2])


SHORT_GROUPS = ("apps", "autoscaling", "batch", "extensions", "policy")


def google_method(method, said):
    """Fills in the columns of the object from `group.version.resource[.subresource].verb`, where
    the group is written backwards. A method of another form fills in nothing."""
    parts = method.split(".")
    at = next((at for at, part in enumerate(parts) if re.fullmatch("v[0-9]+((alpha|beta)[0-9]+)?", part)), 0)
    if at == 0 or len(parts) < at + 3 or "" in parts:
        return
    group, rest = parts[:at], parts[at + 1 : -1]
    if group[:2] == ["io", "k8s"] and len(group) == 3 and group[2] in ("core", *SHORT_GROUPS):
        group = group[2:]
    name = ".".join(reversed(group))
    said.update(api_group=None if group == ["core"] and at == 3 else name, api_version=parts[at])
    said.update(resource=rest[0], subresource=rest[1] if len(rest) > 1 else None)


def google_granted(payload):
    """Returns `allow` if all items of `authorizationInfo` have a true `granted`, otherwise
    `forbid`; None if there are no items. Google Cloud Logging leaves out `granted` when it is
    false."""
    granted = payload.granted("authorizationInfo")
    return None if not granted else "allow" if all(granted) else "forbid"


# Reading bytes of which some are not JSON. No function here is recursive, and each step takes time
# in proportion to the number of bytes.


PARSED_BYTES_MAX = 1 << 20  # longest text that the json module parses at once
WINDOW_BYTES = 1 << 20
SPACE = re.compile(rb"[ \t\r\n]*")
BARE_END = re.compile(rb"[,}\] \t\r\n]")
TOKEN = re.compile(rb"""[\[{]+|[\]}]+|"[^"]*"|["']""")
PLAIN_MEMBER = re.compile(
    rb"""[ \t\r\n]*"([^"\\\x00-\x1f\x80-\xff]*)"[ \t\r\n]*:[ \t\r\n]*("[^"\\\x00-\x1f\x80-\xff]*"|true|false|null|\[\]|\{\}|-?(?:0|[1-9][0-9]*))[ \t\r\n]*([,}])"""
)
BAD_ESCAPE = re.compile(rb'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})')
CONTROL, CONTROL_NOT_SPACE = re.compile(rb"[\x00-\x1f]"), re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
SCALAR = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
MISPLACED = re.compile(rb"\{(?![}\x02])|\[(?![\]\x01{\[])|,(?![\x01\x02{\[])|\x02(?![\x01{\[])|[\x01}\]](?![,}\]]|\Z)")
SECONDS_BELOW, MILLISECONDS_BELOW = 10**11, 10**14


def mask_of(data):
    """Returns bytes of the same length, in which no backslash and no quote is a part of `\\\\\\\\` or
    `\\\\"`. So a string ends at the next quote. An escaped quote is an apostrophe in it."""
    return data.replace(b"\\\\", b"__").replace(b'\\"', b"_'") if b"\\" in data else data


def value_end(data, mask, at):
    """Returns where the value that starts at `at` ends, and how many brackets are open in it at
    most. The value need not be JSON. Returns None in place of the end if the text ends first."""
    first = data[at : at + 1]
    if first == b'"':
        return mask.find(b'"', at + 1) + 1 or None, 0
    if first not in (b"{", b"["):
        end = BARE_END.search(data, at)
        return (end.start() if end else None), 0
    depth = deepest = 0
    while True:
        for token in TOKEN.finditer(mask, at):
            first, length = mask[token.start()], token.end() - token.start()
            if first in b"{[":
                depth += length
                deepest = max(deepest, depth)
            elif first in b"}]":
                if length >= depth:
                    return token.start() + depth, deepest
                depth -= length
            elif data[token.start()] == 0x22 and length == 1:
                # This quote has a backslash before it, but outside of a string that has no meaning.
                at = mask.find(b'"', token.end()) + 1
                if not at:
                    return None, deepest
                break
        else:
            return None, deepest


def is_utf8(data):
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_json(data, mask, start, end, deepest):
    """Returns True if the bytes from `start` to `end` are one JSON value, without white space
    around it, except that strings need not be UTF-8. They are the value that value_end has
    found."""
    if data[start : start + 1] not in (b'"', b"{", b"["):
        return SCALAR.fullmatch(data, start, end) is not None
    if end - start <= PARSED_BYTES_MAX and deepest <= DEPTH_MAX:
        text = data[start:end].decode("latin-1")
        try:
            return SCAN(text, 0)[1] == len(text)
        except (NoRecord, StopIteration, ValueError):
            return False
    if BAD_ESCAPE.search(mask, start, end) or CONTROL_NOT_SPACE.search(mask, start, end):
        return False
    # Each string becomes \x01, and then each other value that is not a list or object \x03.
    out, is_inside = [], False
    for at in range(start, end, WINDOW_BYTES):
        parts = mask[at : min(at + WINDOW_BYTES, end)].split(b'"')
        if CONTROL.search(b"".join(parts[not is_inside :: 2])):
            return False
        out.append((b"\x01" if is_inside and len(parts) > 1 else b"") + b"\x01".join(parts[is_inside::2]))
        is_inside ^= len(parts) % 2 == 0
    text, out, at = b"".join(out), [], 0
    while at < len(text):
        cut = text.find(b",", at + WINDOW_BYTES) + 1 or len(text)
        out.append(SCALAR.sub(b"\x03", text[at:cut]).translate(None, b" \t\r\n"))
        at = cut
    text = b"".join(out).replace(b"\x01:", b"\x02").replace(b"\x03", b"\x01")  # \x02 is a name
    if is_inside or text.translate(None, b"{}[],\x01\x02") or MISPLACED.search(text):
        return False
    # A comma ends a list and starts another one, or an object if a name comes after it. Then the
    # brackets must match.
    text = text.replace(b",\x02", b"}{").replace(b",", b"][").translate(None, b"\x01\x02")
    for _ in range(64):
        shorter = text.replace(b"[]", b"").replace(b"{}", b"")
        if len(shorter) == len(text):
            return not text
        text = shorter
    open_ = bytearray()
    for bracket in text:
        if bracket in b"{[":
            open_.append(bracket + 2)
        elif not open_ or open_.pop() != bracket:
            return False
    return not open_


class Found:
    """An object in bytes that need not be JSON, used instead of an Object. A value that cannot be
    read is None, and `faults` says why. The bytes after the end of the object, or after a break,
    are not read.

    - `values`: for each name in READ, where its last value starts and ends, and what is wrong with
      it; and `list`: (name, where its quoted name starts) of the first member of an event that
      has a column or holds columns.
    - `end`: where the object ends; None if the text ends before that, or breaks.
    - `is_whole`: True if all of it is JSON in UTF-8. `is_odd`: a name in it is not readable.
      `deep`: the names of the values in it that are nested too deep. `depths`: how deep its values
      are that are not plain.
    - `spread`: (name, where its value starts and ends) of each member that can be read and is named
      like one of an object or list of an event.
    - `within`: the object that contains this object. It has already checked that the bytes of this
      object are JSON.
    - `version`: the `eventsFormat` whose rules apply. `also`: names that are kept beside READ."""

    def __init__(self, data, mask, start, within=None, name=None, version=EVENTS_FORMAT, also=frozenset()):
        self.data, self.mask, self.start, self.is_judged = data, mask, start, within is not None
        self.faults, self.pointer = (within.faults, within.pointer_to(name)) if within else (set(), "")
        self.told = TOLD.get(self.pointer, ())
        self.list, self.values, self.end, self.is_whole, self.is_odd, self.deep, self.depths = [], {}, None, True, False, set(), []
        self.spread = []
        self.is_carrier, self.version = False, within.version if within else version
        self.also = within.also if within else also
        self.read(start + 1)
        if self.end is None:
            self.is_whole = False
            self.faults.add(": not_json")
        if not within and version != 1:
            self.put_together()

    def fault(self, name, fault):
        self.faults.add("%s: %s" % (self.pointer_to(name), fault))

    def pointer_to(self, name):
        return "%s/%s" % (self.pointer, name.replace("~", "~0").replace("/", "~1"))

    def read(self, at):
        data, mask = self.data, self.mask
        at = SPACE.match(data, at).end()
        if data[at : at + 1] == b"}":
            self.end = at + 1
            return
        while True:
            plain = PLAIN_MEMBER.match(data, at)
            if plain:
                self.add(plain[1].decode(), plain.start(1) - 1, plain.start(2), plain.end(2), None)
                at = plain.end()
                if plain[3] == b"}":
                    self.end = at
                    return
                continue
            quote = SPACE.match(data, at).end()
            end = mask.find(b'"', quote + 1) + 1
            if data[quote : quote + 1] != b'"' or not end:
                return
            try:
                name = self.name(data[quote:end])
            except NoRecord:
                return
            colon = SPACE.match(data, end).end()
            if data[colon : colon + 1] != b":":
                return
            start = SPACE.match(data, colon + 1).end()
            end, deepest = value_end(data, mask, start)
            if end is None:
                return
            fault = None if self.is_judged else self.judge(start, end, deepest)
            if name is None:
                self.is_odd = True
                self.is_whole &= is_utf8(data[quote:colon])
                if not self.is_judged:
                    self.faults.add(": not_utf8")
            elif fault:
                self.faults.add("%s: %s" % (self.pointer_to(name) if name in self.told else "", fault))
            if fault == "not_json":
                return
            self.is_whole &= fault != "not_utf8"
            if fault == "too_deep":
                self.deep.add(name)
            self.depths.append((name, deepest))
            if name is not None:
                self.add(name, quote, start, end, fault)
            at = SPACE.match(data, end).end()
            if data[at : at + 1] == b"}":
                self.end = at + 1
                return
            if data[at : at + 1] != b",":
                return
            at += 1

    def add(self, name, quote, start, end, fault):
        if name in self.told:
            if name in self.values:
                self.fault(name, "duplicate_member")
            if not self.list:
                self.list.append((name, quote))
        if name in READ or name in self.also:
            self.values[name] = start, end, fault
        if not fault and not self.is_judged and name not in NOT_BESIDE and SPREAD.match(name):
            self.spread.append((name, start, end))

    def put_together(self):
        """Reads objects and lists that were written as text, or whose members are among those of
        the event."""
        for name in NESTED:
            if name in self.values:
                start, end, fault = self.values[name]
                text = None if fault or self.data[start : start + 1] != b'"' else held(self.data[start:end], name)
                if text is not None:
                    self.put(name, text)
                continue
            members = [(name_[len(name) + 1 :], name_[len(name)], self.data[start:end]) for name_, start, end in self.spread if name_[: len(name)] == name and name_[len(name)] in "._"]
            if name in ("requestObject", "responseObject"):
                if members:
                    self.fault(name, "wrong_type")
            elif name == "sourceIPs":
                self.put(name, list_of(members))
            elif name == "annotations":
                self.put(name, joined([(key, value) for key, between, value in members if between == "."]))
            else:
                known = TOLD["/" + name]
                found = [(key, value) for key, _, value in members if key in known]
                if "groups" in known and not any(key == "groups" for key, _ in found):
                    groups = list_of([(key[7:], None, value) for key, _, value in members if key.startswith(("groups.", "groups_"))])
                    found += [("groups", groups)] if groups else []
                self.put(name, joined(found))

    def put(self, name, text):
        """Takes `text` as the value of a member, if it is not None. The text is appended to the
        bytes of the event."""
        if text is not None:
            start = len(self.data)
            self.data, self.mask = self.data + text, self.mask + mask_of(text)
            self.values[name] = start, len(self.data), None

    @staticmethod
    def name(quoted):
        """Returns None for a name that cannot be read. Raises NoRecord for one that is not JSON."""
        is_readable = is_utf8(quoted)
        try:
            name, _ = json.decoder.scanstring(quoted.decode() if is_readable else quoted.decode("latin-1"), 1, True)
        except ValueError:
            raise NoRecord
        if not is_readable:
            return None
        return name if b"\\u" not in quoted or is_unicode(name) else None

    def judge(self, start, end, deepest):
        """Returns the fault of the value from `start` to `end`; None if there is none."""
        if not is_json(self.data, self.mask, start, end, deepest):
            return "not_json"
        if not is_utf8(self.data[start:end]):
            return "not_utf8"
        return "too_deep" if 1 + deepest > DEPTH_MAX else None

    def before(self, quote):
        return self.data[self.start + 1 : quote].decode()

    def has(self, name):
        return name in self.values

    def first(self, name):
        """Returns the first byte of a value, which shows the type of the value. Returns an empty
        text if the value is absent or null, and a space if it cannot be read."""
        start, _, fault = self.values.get(name, (0, 0, None))
        if name not in self.values or not fault and self.data.startswith(b"null", start):
            return ""
        return " " if fault and not (self.is_carrier and fault == "too_deep") else chr(self.data[start])

    def bytes(self, name):
        start, end, _ = self.values[name]
        return self.data[start:end]

    def of_type(self, name, first):
        """Returns True if the value starts with one of the bytes `first`. If it starts with another
        byte, it is of the wrong type, which is a fault."""
        there = self.first(name)
        if there not in ("", " ") and there not in first:
            self.fault(name, "wrong_type")
        return there != "" and there in first

    def if_string(self, name):
        """Returns the text of a string; None if it is another value or cannot be read."""
        return self.name(self.bytes(name)) if self.first(name) == '"' else None

    def string(self, name):
        if not self.of_type(name, '"'):
            return None
        text = self.if_string(name)
        if text is None:
            self.fault(name, "not_utf8")
        return text

    def strings(self, name):
        if not self.of_type(name, "["):
            return None
        start, end, _ = self.values[name]
        items = SCAN(self.bytes(name).decode(), 0)[0] if value_end(self.data, self.mask, start)[1] == 1 else [None]
        if not all(isinstance(item, str) for item in items):
            self.fault(name, "wrong_type")
            return None
        if self.data.find(b"\\u", start, end) >= 0 and not all(map(is_unicode, items)):
            self.fault(name, "not_utf8")
            return None
        return items

    def time(self, name):
        if self.first(name) in DIGITS:
            number = self.bytes(name)
            count = int(number) if number.isdigit() and len(number) < 16 else MILLISECONDS_BELOW
            if count < MILLISECONDS_BELOW:
                return count * (1_000_000 if count < SECONDS_BELOW else 1000)
        else:
            text = self.string(name)
            if text is None:
                return None
            try:
                return microseconds(text, LIKE_RFC_3339)
            except NoRecord:
                pass
        self.fault(name, "not_a_time")
        return None

    def body(self, name):
        return None if self.first(name) in ("", " ") else self.bytes(name).decode()

    def json(self, name):
        return self.body(name) if self.of_type(name, "{") else None

    def object(self, name):
        """Returns the object of that name; one without members if there is none."""
        if not self.of_type(name, "{"):
            return NO_MEMBERS
        found = Found(self.data, self.mask, self.values[name][0], self, name)
        if found.is_odd:
            self.faults.add(": not_utf8")
        return found

    def if_object(self, name):
        """Like `object`, but reports no fault. Returns an object without members if a name in it is
        not readable."""
        if self.first(name) != "{":
            return NO_MEMBERS
        found = Found(self.data, self.mask, self.values[name][0], self, name)
        return NO_MEMBERS if found.is_odd else found

    def granted(self, name):
        """Returns, for each item of an array, if its member `granted` is true. Returns an empty
        list if there is no array."""
        granted = []
        if not self.of_type(name, "["):
            return granted
        at = SPACE.match(self.data, self.values[name][0] + 1).end()
        while self.data[at : at + 1] != b"]":
            end, _ = value_end(self.data, self.mask, at)
            if self.data[at : at + 1] == b"{":
                item = Found(self.data, self.mask, at, self, name)
                if item.is_odd:
                    self.faults.add(": not_utf8")
                granted.append(item.is_true("granted"))
            elif self.data[at:end] == b"null":
                granted.append(False)
            else:
                self.fault(name, "wrong_type")
                return []
            at = SPACE.match(self.data, end).end()
            if self.data[at : at + 1] == b",":
                at = SPACE.match(self.data, at + 1).end()
        return granted

    def failed(self):
        """Returns `Failure` if the code of `status` is an integer other than 0."""
        if self.version == 1:
            return None
        status = self.object("status")
        if status is NO_MEMBERS or status.first("code") not in DIGITS:
            return None
        code = status.bytes("code")
        return "Failure" if WHOLE_NUMBER.fullmatch(code) and code.strip(b"-0") else None

    def integer(self, name, bits):
        if not self.of_type(name, DIGITS):
            return None
        number = self.bytes(name)
        if not INTEGER.fullmatch(number) or not -(1 << bits - 1) <= int(number) < 1 << bits - 1:
            self.fault(name, "wrong_type")
            return None
        return int(number)

    def is_true(self, name):
        return self.first(name) == "t"

    def known(self, name, names):
        text = self.string(name)
        if text is not None and text not in names:
            self.fault(name, "unknown_" + name)
        return text

    def level(self):
        """Returns the level. OpenShift's log collector writes it in another member."""
        text = self.if_string("level")
        if self.version != 1 and text not in LEVELS and (text is not None or self.first("level") == ""):
            other = self.if_string("k8s_audit_level" if self.first("k8s_audit_level") else "openshift_audit_level")
            if other in LEVELS:
                return other
        return self.known("level", LEVELS)


def held(literal, name):
    """Returns the object or list in a string, as bytes; None if there is none."""
    text = Found.name(literal)
    text = (text or "").strip(" \t\r\n")
    first = {"sourceIPs": "[", "requestObject": "{[", "responseObject": "{["}.get(name, "{")
    if not text or text[0] not in first:
        return None
    data = text.encode()
    end, deepest = value_end(data, mask_of(data), 0)
    is_read = end == len(data) and 1 + deepest <= DEPTH_MAX and is_json(data, mask_of(data), 0, end, deepest)
    return data if is_read else None


def joined(members):
    """Returns an object of these members, as bytes; None if there are none."""
    return b"{%s}" % b",".join(b"%s:%s" % (json.dumps(key, ensure_ascii=False).encode(), value) for key, value in members) if members else None


def list_of(members):
    """Returns the list whose items have their numbers as names; None if there is none."""
    items = [value for key, _, value in members if key and key.isascii() and key.isdigit()]
    return b"[%s]" % b",".join(items) if items else None


NESTED = (*CONTAINERS, "annotations", "sourceIPs", "requestObject", "responseObject")
SPREAD = re.compile("(?:%s)[._]." % "|".join(NESTED), re.DOTALL)
DIGITS = tuple("-0123456789")
WHOLE_NUMBER = re.compile(rb"-?[0-9]+")
# TOLD maps the pointer to an object to the names that are reported if they are repeated or if their
# value cannot be read. Next, all names that are read in any object.
TOLD = {"/" + name: {key for key, _, _ in fields} for name, fields in CONTAINERS.items()}
TOLD.update({"": EVENT_MEMBERS, "/annotations": {DECISION, REASON}})
CARRIED = [
    path.split(".")
    for path in (
        "log", "message", "MESSAGE", "msg", "event", "event.original", "event.log", "event.message", "json", "log_processed", "structured", "kubernetes.audit", "body", "body.stringValue",
        "payload", "data", "log_s", "line", "_raw", "full_message", "short_message",
    )
]  # fmt: skip
MESSAGE = ["MESSAGE"]  # where journald keeps a line
READ = set().union(*TOLD.values(), *CARRIED) | {
    "kind", "apiVersion", "k8s_audit_level", "openshift_audit_level", "method", "records", "category", "properties", "logEvents", "messageType", "logName",
    "protoPayload", "insertId", "textPayload", "jsonPayload", "resource", "type", "serviceName", "@type", "operation", "requestMetadata", "authenticationInfo",
    "callerIp", "methodName", "id", "last", "first", "principalEmail", "principalSubject", "callerSuppliedUserAgent", "request", "response", "labels", "timestamp", "resourceName",
    "status", "authorizationInfo", "granted", "stream", "resourceLogs", "streams", "values", "events", "metadata",
}  # fmt: skip


def read_event(data, version=EVENTS_FORMAT, also=frozenset()):
    """Reads an object that may be an audit event. Returns None if the text is not one object. The
    end of the object may be missing."""
    start = SPACE.match(data).end()
    if data[start : start + 1] != b"{":
        return None
    found = Found(data, mask_of(data), start, version=version, also=also)
    is_alone = found.end is None or SPACE.match(data, found.end).end() == len(data)
    return found if is_alone else None


def is_audit_event(found):
    """Decides whether an object is an audit event."""
    kind, version = found.if_string("kind"), found.if_string("apiVersion")
    if found.first("kind") and kind != "Event" or version is not None and not version.startswith("audit.k8s.io/"):
        return False
    if kind is None and found.version != 1 and is_of_rancher(found):
        return False
    user, verb, uri = found.first("user") == "{", found.if_string("verb"), found.if_string("requestURI")
    if found.end is None and not (user and (verb is not None or uri is not None)):
        return False
    if found.if_string("auditID") is not None or kind is not None and version is not None:
        return True
    return user and verb is not None and uri is not None and found.if_string("stage") is not None


def is_of_rancher(found):
    """Returns True if an object without a kind is a record of Rancher's API audit log."""
    first = found.first
    if first("method") and first("requestURI") and not any(map(first, ("verb", "stage", "level"))):
        return True
    if first("user") != "{":
        return False
    user = Found(found.data, found.mask, found.values["user"][0], found, "user")
    return bool(user.first("name")) and not user.first("username")


def columns_of(event):
    """The columns of an audit event."""
    return with_faults(event_columns(event), event)


def with_faults(said, found):
    faults = sorted(found.faults, key=str.encode)[:FAULTS_MAX]
    return dict(said, faults=faults or None)


def is_nested_text(value):
    """Returns True if a value may be an object or list that was written as text."""
    return isinstance(value, str) and value.strip(" \t\r\n")[:1] in ("{", "[")


def plain_columns(text):
    """Returns the columns of an audit event without faults, read in a fast way. Returns None for
    all other text, and also for some events, which must be read in the slow way."""
    try:
        event = document(text)
        value = event.value
        if not is_event(event) or event.repeats() or event.has("k8s_audit_level") or event.has("openshift_audit_level"):
            return None
        if value("kind") is None:
            user = value("user")
            if value("method") is not None or isinstance(user, dict) and user.get("username") is None and user.get("name") is not None:
                return None
        if any(isinstance(value(name), dict) and event.object(name).repeats() for name in (*CONTAINERS, "annotations")):
            return None
        if any(is_nested_text(value(name)) for name in ("requestObject", "responseObject")):
            return None
        for name in event.values.keys() - NOT_BESIDE:
            if SPREAD.match(name):
                return None
        return dict(event_columns(event), faults=None)
    except NoRecord:
        return None


# Finding the event in a record.


LAYERS_MAX, PREFIX_BYTES_MAX = 4, 8 << 10
TIME_BEFORE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})"
COOKIE = rb"@cee: ?"
HOST_AND_TAG = rb"[!-~]{1,255} [A-Za-z0-9_./-]{1,64}(?:\[[0-9]{1,10}\])?: (?:%s)?" % COOKIE
PREFIX = re.compile(
    rb"(?:<[0-9]{1,3}>)?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3][0-9] [0-9:]{8}(?:\.[0-9]{1,9})? %(host)s"
    rb"|(?:<[0-9]{1,3}>)?%(time)s %(host)s"
    rb"|[A-Z][a-z]{2} [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(?:\.[0-9]{1,9})? [A-Z]{1,5} %(host)s"
    rb"|%(time)s (?:stdout F |[!#-<>-z|}~]{1,512} )?|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2} |%(cookie)s"
    % {b"time": TIME_BEFORE, b"host": HOST_AND_TAG, b"cookie": COOKIE}
)
PREFIX_FLUENTD = re.compile(rb"%s\t[!-~]{1,255}\t" % TIME_BEFORE)
PREFIX_5424 = re.compile(
    rb"<[0-9]{1,3}>1 (?:%s|-) [!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32} (?:-|(?:\[(?:[ !#-\\^-~]|\"(?:[ !#-\[^-~]|\\[ -~])*\")*\])+) (?:%s)?"
    % (TIME_BEFORE, COOKIE)
)
CRI_LINE = re.compile(rb"(?:%s) (stdout|stderr) ([FP])(?::[!-~]{0,%d})? " % (TIME_BEFORE, PREFIX_BYTES_MAX))
SPELLING = re.compile(rb"\\|\{[ \t\r\n]*\\")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNWRAP, UNWRAP_NAMES_MAX, UNWRAP_BYTES_MAX = "unwrap:", 8, 256
NAME_IN_PATH, CONTROL_IN_PATH = re.compile(r"(?:[^.\\]|\\[.\\])+"), re.compile(r"[\x00-\x1f\x7f-\x9f]")
CLIENTS_OWN = ("requestObject", "responseObject", "annotations")


def after_prefix(data):
    """Returns the rest of a text after its prefix, from the first `{` on. A container's runtime may
    have put its prefix before another one. Returns None if there is no prefix."""
    line = CRI_LINE.match(data)
    if line and (line[1], line[2]) != (b"stdout", b"F"):
        return None
    rest = after_one_prefix(data)
    if rest is None and line and after_one_prefix(data[line.end() :]) is not None:
        return data[line.end() :]
    return rest


def after_one_prefix(data):
    brace = data.find(b"{", 0, PREFIX_BYTES_MAX + 1)
    if brace < 0:
        return None
    prefix = data[:brace]
    if PREFIX.fullmatch(prefix) or PREFIX_FLUENTD.fullmatch(prefix) or PREFIX_5424.fullmatch(prefix[:-3] if prefix.endswith(BYTE_ORDER_MARK) else prefix):
        return data[brace:]
    return None


def unwrap(data, version=EVENTS_FORMAT, layers=LAYERS_MAX, is_google_allowed=True):
    """Returns the columns of the event in a text that has at most `layers` layers around it."""
    is_first = layers == LAYERS_MAX
    text = data.strip(WHITE.encode())
    if is_first and SPELLING.match(data):
        return unwrap_spelling(data, version)
    if text.startswith(b"{"):
        return in_object(data, version, layers, is_google_allowed)
    if not layers:
        raise NoRecord
    if text.startswith(b'"'):
        string = text_of(text) if is_first else None
        if string is None or string.lstrip(WHITE.encode()).startswith(b'"'):
            raise NoRecord
        return unwrap(string.rstrip(WHITE.encode()), version, layers - 1)
    rest = after_prefix(data)
    if rest is None and is_first:
        rest = of_container_runtime(data)
    if rest is None:
        raise NoRecord
    return unwrap(rest, version, layers - 1, is_google_allowed=False)


def unwrap_spelling(data, version):
    """Returns the columns of an event as it is spelt in a string, with escapes and without quotes: an
    element of a list in a text."""
    for _ in range(LAYERS_MAX):
        if SPELLING.match(data):
            data = text_of(b'"%s"' % data)
            if data is None:
                raise NoRecord
    if SPELLING.match(data):
        raise NoRecord
    return unwrap(data, version, LAYERS_MAX if data.startswith(b'"') else 0)


ESCAPED_BYTES = re.compile(rb"(?:\\u[0-9A-Fa-f]{4})+|\\.")


def text_of(quoted):
    """Returns the text of a JSON string. Bytes that are not UTF-8 stay in the text, and a lone
    surrogate becomes three such bytes."""
    mask = mask_of(quoted)
    end, _ = value_end(quoted, mask, 0)
    if end != len(quoted) or not is_json(quoted, mask, 0, end, 0):
        return None
    return ESCAPED_BYTES.sub(lambda escapes: json.loads(b'"%s"' % escapes[0]).encode(errors="surrogatepass"), quoted[1:-1])


def in_object(data, version, layers, is_google_allowed):
    said = None
    if len(data) <= PARSED_BYTES_MAX:
        try:
            said = plain_columns(data.decode())
        except UnicodeDecodeError:
            pass
    if said is not None:
        return said
    found = read_event(data, version)
    if found is None or found.end is None and b"\n" in data and not is_audit_event(found):
        rest = of_docker(data) if layers == LAYERS_MAX else None
        if rest is None:
            raise NoRecord
        return unwrap(rest, version, layers - 1)
    if is_audit_event(found):
        return columns_of(found)
    if not found.is_whole:
        raise NoRecord
    if is_google(found):
        if not is_google_allowed or found.deep - {"protoPayload"} or found.is_odd:
            raise NoRecord
        found.faults, found.is_carrier = set(), True  # so its payload may be of any depth
        return with_faults(google_columns(found), found)
    if not layers or not may_be_carrier(found):
        raise NoRecord
    return in_carrier(found, layers)


def may_be_carrier(found):
    """Returns False for an object of Kubernetes, and for the wrappers of many events."""
    first, has = found.first, found.has
    if found.is_odd or is_cloud(found) or any(map(first, ("kind", "apiVersion", "auditID"))):
        return False
    return not (has("resourceLogs") or has("streams") or has("stream") and has("values") or has("events"))


def in_carrier(found, layers):
    """Returns the columns of the event in a member of an object."""
    found.is_carrier = True  # so its values may be of any depth
    if is_part_of_line(found):
        raise NoRecord
    for path in CARRIED:
        holder = found
        for name in path[:-1]:
            holder = holder.if_object(name)
        if holder is NO_MEMBERS or path[0] == "event" and len(path) > 1 and any(map(holder.first, ("apiVersion", "auditID", "metadata"))):
            continue
        first = holder.first(path[-1])
        try:
            if first == "{":
                event = read_event(holder.bytes(path[-1]), found.version)
                if event is not None and holds_event(event) and is_audit_event(event):
                    return columns_of(event)
            elif first == '"' or first == "[" and path == MESSAGE:
                text = text_in(holder, path[-1])
                if text.startswith(b"{") or after_prefix(text) is not None:
                    return unwrap(text, found.version, layers - 1)
        except NoRecord:
            continue
    raise NoRecord


LIST_OF_BYTES, BYTE_IN_LIST = re.compile(rb"\[[0-9, \t\r\n]*\]"), re.compile(rb"[0-9]+")


def text_in(holder, name):
    """Returns the text of a member, without white space around it. The member is a string, or a
    list of the numbers of the text's bytes, as journald writes a text with characters that cannot
    be printed."""
    if holder.first(name) == '"':
        return (holder.if_string(name) or "").strip(WHITE).encode()
    quoted = holder.bytes(name)
    if not LIST_OF_BYTES.fullmatch(quoted):
        return b""
    try:
        return bytes(int(number[:4]) for number in BYTE_IN_LIST.findall(quoted)).strip(WHITE.encode())
    except ValueError:
        return b""


def path_of(shape):
    """Returns the names on the path by which an event was found, if the shape of its row has such a
    path."""
    if shape is None or not shape.startswith(UNWRAP):
        return None
    text = shape[len(UNWRAP) :]
    names = NAME_IN_PATH.findall(text)
    if not 0 < len(names) <= UNWRAP_NAMES_MAX or ".".join(names) != text or len(text.encode()) > UNWRAP_BYTES_MAX or CONTROL_IN_PATH.search(text):
        return None
    names = [re.sub(r"\\(.)", r"\1", name) for name in names]
    return None if names[0] in CLIENTS_OWN else names


def at_path(data, path, version):
    """Returns the columns of the event at a path in an object."""
    holder = found = read_event(data, version, frozenset(path))
    if found is None or is_audit_event(found) or not found.is_whole or is_google(found) or not may_be_carrier(found):
        raise NoRecord
    found.is_carrier = True  # so its values may be of any depth
    if is_part_of_line(found):
        raise NoRecord
    for name in path[:-1]:
        holder = holder.if_object(name)
        if holder is NO_MEMBERS:
            raise NoRecord
    first = holder.first(path[-1])
    if first == "{":
        event = read_event(holder.bytes(path[-1]), version)
        if event is not None and is_audit_event(event):
            return columns_of(event)
    elif first in ('"', "["):
        text = text_in(holder, path[-1])
        if text.startswith(b"{") or after_prefix(text) is not None:
            said = unwrap(text, version, LAYERS_MAX - 1)
            if said.get("shape") is None:
                return said
    raise NoRecord


def holds_event(found):
    """Returns True if an object says of itself that it is an audit event."""
    kind, version = found.if_string("kind"), found.if_string("apiVersion")
    return found.if_string("auditID") is not None or kind == "Event" and version is not None and version.startswith("audit.k8s.io/")


def is_part_of_line(found):
    """Returns True if an object says that its text is a part of a line. Who wrote the text was
    judged when it arrived, by the configuration of its source, and is not judged here."""
    try:
        return is_part(pairs_of(found.data[found.start : found.end]))
    except (ValueError, RecursionError):
        return False


PART_FLAGS = "_partial", "partial", "partial_message", "CONTAINER_PARTIAL_MESSAGE", "container_partial_message"


def is_part(carrier, is_event=False):
    """Returns True if a carrier says that its text is a part of a line, or is a line of docker's
    `json-file` log whose text has no line feed."""
    event = carrier.at("event")
    if not is_event and isinstance(event, Pairs) and is_part(event, is_event=True):
        return True
    inner = (carrier.at(name) for name in ("attributes", "metadata", "container"))
    if any(has_mark(members) for members in (carrier, *inner) if isinstance(members, Pairs)):
        return True
    if carrier.at("_LINE_BREAK") in ("line-max", "pid-change"):
        return True
    log = carrier.at("log")
    if has_partial(carrier.at("log.flags")) or isinstance(log, Pairs) and has_partial(log.at("flags")):
        return True
    has_tag = any(name in ("logtag", "_p") for name, _ in carrier)
    of_docker = all(isinstance(carrier.at(name), str) for name in ("stream", "time", "log"))
    return not has_tag and of_docker and not log.endswith("\n")


def has_mark(members):
    def is_mark(name, value):
        if isinstance(value, str):
            return name == "logtag" and value.startswith("P") or name in PART_FLAGS and (value == "1" or value.isascii() and value.lower() == "true")
        return name in PART_FLAGS and (value is True or value == b"1")

    return any(is_mark(name, value) for name, value in members)


def has_partial(flags):
    return flags == "partial" or isinstance(flags, list) and "partial" in flags and all(isinstance(flag, str) for flag in flags)


def pairs_of(data):
    """Parses JSON. An object becomes Pairs, and an integer its digits, as bytes."""
    return json.loads(data, object_pairs_hook=Pairs, parse_int=str.encode)


class Pairs(list):
    """The members of an object."""

    def at(self, name):
        return next((value for key, value in reversed(self) if key == name), None)


def lines_of(data):
    at, end = 0, data.find(b"\n")
    while end >= 0:
        yield data[at:end]
        at, end = end + 1, data.find(b"\n", end + 1)
    yield data[at:]


def of_container_runtime(data):
    """Joins the parts of a line that containerd or CRI-O has divided. Returns None if the lines are
    not the parts of one line. The last part may be missing from a text that is cut."""
    parts, is_last = [], False
    for line in lines_of(data):
        match = CRI_LINE.match(line)
        if not match or is_last:
            return None
        if match[1] == b"stdout":
            parts.append(line[match.end() :])
            is_last = match[2] == b"F"
    joined = b"".join(parts)
    if b"\n" not in data or not parts:
        return None
    return joined if is_last or not is_one_json(joined) else None


def is_one_json(data):
    """Returns True if the bytes begin with one JSON value."""
    mask, start = mask_of(data), SPACE.match(data).end()
    end, deepest = value_end(data, mask, start)
    return end is not None and is_json(data, mask, start, end, deepest)


def of_docker(data):
    """Joins the parts of a line that Docker has divided. Returns None if the lines are not the
    parts of one line."""
    texts = []
    for line in lines_of(data):
        found = read_event(line)
        if found is None or not found.is_whole or found.is_odd or found.if_string("log") is None:
            return None
        if texts and texts[-1].endswith("\n"):
            return None
        if found.if_string("stream") == "stderr":
            continue
        if found.first("stream") and found.if_string("stream") != "stdout":
            return None
        texts.append(found.if_string("log"))
    return "".join(texts).encode() if b"\n" in data and texts and texts[-1].endswith("\n") else None


class Events:
    """Compares the columns of events with their records. Column texts often repeat, so the result
    for each text is remembered."""

    def __init__(self, version=EVENTS_FORMAT):
        self.remembered, self.version = {}, version
        self.compared = EVENT_COMPARED if version == 1 else EVENT_COMPARED[:-1] + ["faults"] + EVENT_COMPARED[-1:]

    def __call__(self, row, record):
        """Returns the columns that differ from the record, in order; None if the record is not one
        of events."""
        if len(record) > RECORD_BYTES_MAX:
            return None
        try:
            if row.get("form") is not None:
                # Compare only with the event: the text around it is part of the form.
                said = self.event(render_form(row, event_only=True))[1]
            elif row.get("raw") is None and self.says_itself(row):
                said = {column: row.get(column) for column in EVENT_COMPARED}
            else:
                said = self.columns(row.get("raw") is None, record, row.get("shape"))
        except (NoRecord, UnicodeDecodeError):
            return None
        if len(record) == RECORD_BYTES_MAX and ": too_long" in (row.get("faults") or ()):
            # The record may be the first piece of a longer line.
            faults = [": too_long" if fault == ": not_json" else fault for fault in said.get("faults") or ()]
            said["faults"] = sorted(faults, key=str.encode)
        return [column for column in self.compared if row.get(column) != said.get(column)]

    def event(self, data):
        """Parses a text as an audit event. Returns the event and its columns."""
        event = read_event(data, self.version)
        if event is None or not is_audit_event(event):
            raise NoRecord
        return event, with_faults(event_columns(event), event)

    def columns(self, is_rendered, record, shape=None):
        if is_rendered:
            event, said = self.event(record)
            return dict(said, shape=shape_of(event))
        path = path_of(shape)
        try:
            return unwrap(record, self.version)
        except (NoRecord, UnicodeDecodeError):
            if path is None:
                raise
        return dict(at_path(record, path, self.version), shape=shape)

    def says_itself(self, row):
        """Returns True if it is certain, without parsing, that the record rendered from a row
        agrees with the columns. This is so if each value in the row is exactly one JSON value of
        the right type: then the record consists of keys and whole values from its first byte to its
        last, and can be read in only one way. If the result is False, the record must be parsed."""
        code, times = row.get("response_code"), (row.get("request_received_timestamp"), row.get("stage_timestamp"))
        needs_id = self.once(self.head, "shape", row.get("shape"))
        return (
            needs_id is not None
            and (not needs_id or row.get("audit_id") is not None)
            and row.get("level") in LEVELS + (None,)
            and row.get("stage") in STAGES + (None,)
            and (code is None or type(code) is int and -(1 << 31) <= code < 1 << 31)
            and all(time is None or RENDERED_FROM_US <= time < RENDERED_TO_US for time in times)
            and all(None not in (row.get(column) or ()) for column in ("user_groups", "impersonated_user_groups", "source_ips"))
            and all(row.get(column) is None or self.once(self.is_object, "object", row[column]) for column in ("user_extra", "impersonated_user_extra", "response_details"))
            and all(row.get(column) is None or self.is_body(row[column]) for column in ("request_object", "response_object"))
            and (row.get("authz_decision"), row.get("authz_reason")) == self.once(self.decision, "annotations", row.get("annotations"))
        )

    def once(self, judge, kind, text):
        key = kind, text
        if key not in self.remembered:
            if len(self.remembered) >= REMEMBERED_MAX:
                self.remembered.clear()
            judged = judge(text)
            if text is not None and len(text) > REMEMBERED_BYTES_MAX:
                return judged
            self.remembered[key] = judged
        return self.remembered[key]

    def head(self, shape):
        """For an object that starts with `shape`: returns True if it is an event only if it has an
        `auditID`, False if it is an event in any case, and None if that depends on the rest of the
        object."""
        try:
            event = document("{%s" % (DEFAULT_SHAPE if shape is None else shape) + '"level":null}')
            if shape_of(event) != shape or is_deeper(event.text, DEPTH_BESIDE_MAX):
                return None
            if self.version != 1 and any(map(event.has, ("k8s_audit_level", "openshift_audit_level", "method"))):
                return None
            if any(map(SPREAD.match, event.values)):
                return None
            if is_event(event):
                return False
            return True if event.value("kind") in (None, "Event") and event.value("apiVersion") is None else None
        except NoRecord:
            return None

    @staticmethod
    def is_object(text):
        try:
            found = document(text)
        except NoRecord:
            return False
        return text.startswith("{") and text.endswith("}") and not found.is_odd and not is_deeper(text, DEPTH_BESIDE_MAX)

    def decision(self, text):
        if text is None:
            return None, None
        try:
            found = document(text)
            if self.version != 1 and found.repeats():
                return None
            return (found.string(DECISION), found.string(REASON)) if self.is_object(text) else None
        except NoRecord:
            return None

    @staticmethod
    def is_body(text):
        if "\0" in text or is_deeper(text, DEPTH_BESIDE_MAX):
            return False
        try:
            value, end = value_at(text, 0)
        except NoRecord:
            return False
        return end == len(text) and value is not None and not is_nested_text(value)


DEPTH_BESIDE_MAX = DEPTH_MAX - 2  # how deep a column's JSON may be nested: it may be in an object in the event, two levels deep
RENDERED_FROM_US, RENDERED_TO_US = -62_167_219_200_000_000, 253_402_300_800_000_000  # the years 0 to 9999
EVENT_COMPARED = [column for _, column, _ in HEAD] + ["user_agent"] + [column for _, column, _ in USER + IMPERSONATED + OBJECT_REF + STATUS] + [
    "source_ips", "request_object", "response_object", "annotations", "authz_decision", "authz_reason", "request_received_timestamp", "stage_timestamp", "shape",
]  # fmt: skip


class Differing:
    """Collects the rows of a file whose columns differ from their records. Reports the first
    ROWS_TOLD_MAX of these rows, and their total number."""

    def __init__(self, where, report):
        self.where, self.report, self.first, self.count = where, report, [], 0

    def row(self, row, columns):
        """Adds a row. `columns` are the columns of the row that differ, or None if there is no
        record with which the row could be compared."""
        if columns is None:
            self.add(row, "its record is not one of the table")
        elif columns:
            self.add(row, "not what its record says: %s" % ", ".join(columns))

    def add(self, row, detail):
        self.count += 1
        if len(self.first) < ROWS_TOLD_MAX:
            self.first.append((row, detail))

    def end(self):
        more = "; such rows of the file: %d" % self.count if self.count > len(self.first) else ""
        for row, detail in self.first:
            self.report.finding("columns_differ", "%s, row %d" % (self.where, row), detail + more)


# Alerts: the finding (OCSF, in the column `ocsf`), which is the record, and the other columns.

TACTICS = {
    ("Collection", "TA0009"): "collection",
    ("Command and Control", "TA0011"): "command-and-control",
    ("Credential Access", "TA0006"): "credential-access",
    ("Defense Evasion", "TA0005"): "defense-evasion",
    ("Discovery", "TA0007"): "discovery",
    ("Execution", "TA0002"): "execution",
    ("Exfiltration", "TA0010"): "exfiltration",
    ("Impact", "TA0040"): "impact",
    ("Initial Access", "TA0001"): "initial-access",
    ("Lateral Movement", "TA0008"): "lateral-movement",
    ("Persistence", "TA0003"): "persistence",
    ("Privilege Escalation", "TA0004"): "privilege-escalation",
    ("Reconnaissance", "TA0043"): "reconnaissance",
    ("Resource Development", "TA0042"): "resource-development",
}
SEVERITIES = {name: name.lower() for name in ("Informational", "Low", "Medium", "High", "Critical")}


class Said:
    """Reads values from a finding. A value is named by its path of member names and list positions.
    If a value is absent or does not have the requested type, the result is None."""

    def __init__(self, text):
        found = document(text)
        self.is_odd, self.root = found.is_odd, found.values

    def at(self, path, value=None):
        """The value at a path of names and positions."""
        value = self.root if value is None else value
        for step in path:
            if isinstance(step, int):
                value = value[step] if isinstance(value, list) and step < len(value) else None
            else:
                value = value.get(step) if isinstance(value, dict) and self.is_readable(value) else None
        return value if not isinstance(value, dict) or self.is_readable(value) else None

    def is_readable(self, value):
        return not self.is_odd or all(map(is_unicode, value))

    def text(self, path, value=None):
        found = self.at(path, value)
        return found if isinstance(found, str) and (not self.is_odd or is_unicode(found)) else None

    def number(self, path, value=None):
        found = self.at(path, value)
        if isinstance(found, bytes) and INTEGER.fullmatch(found) and -(1 << 63) <= int(found) < 1 << 63:
            return int(found)
        return None

    def list(self, path):
        found = self.at(path)
        return found if isinstance(found, list) else []

    def texts(self, path):
        """Returns the list of strings at a path; None if it is not a list, or if an item is not a
        string."""
        found = self.at(path)
        texts = [self.text((), item) for item in found] if isinstance(found, list) else None
        return None if texts is None or None in texts else texts

    def attacks(self, of):
        found = [of(attack) for attack in self.list(("finding_info", "attacks")) if attack is not None]
        return [item for item in found if item is not NOTHING]


def tactics(said):
    def of(attack):
        if said.at(("tactic",), attack) is None:
            return NOTHING
        name, uid = said.text(("tactic", "name"), attack), said.text(("tactic", "uid"), attack)
        return TACTICS.get((name, uid)) if uid is not None else name

    return said.attacks(of)


def techniques(said):
    def of(attack):
        if said.at(("technique",), attack) is None:
            return NOTHING
        part = "technique" if said.at(("sub_technique",), attack) is None else "sub_technique"
        return said.text((part, "uid"), attack)

    return said.attacks(of)


def text_at(*path):
    return lambda said, value: value == said.text(path)


def text_or_empty_at(*path):
    """Like `text_at`, for a value that the finding leaves out if it is empty."""
    return lambda said, value: value == (said.text(path) or "")


def number_at(*path):
    return lambda said, value: value == said.number(path)


def milliseconds_at(*path):
    """The finding has milliseconds and the column has microseconds, so the last three digits of the
    column are ignored."""
    return lambda said, value: (None if value is None else value // 1000) == said.number(path)


def event_ranges(said):
    """Returns the finding's ranges of events as JSON, in the form of the column `event_ranges`;
    None if they are absent or not valid."""
    found = said.at(("unmapped", "event_ranges"))
    if not isinstance(found, list):
        return None
    ranges = [[said.text(("source",), item), said.number(("first",), item), said.number(("last",), item)] for item in found if item is not None]
    if len(ranges) < len(found) or any(None in item for item in ranges):
        return None
    return json.dumps(ranges, ensure_ascii=False, separators=(",", ":"))


def is_verb(said, value):
    operation = said.text(("evidences", 0, "api", "operation"))
    return value == operation or value is None and operation == "unknown"


def is_source_ip(said, value):
    address = said.text(("evidences", 0, "src_endpoint", "ip"))
    return value == (said.text(("evidences", 0, "src_endpoint", "name")) if address is None else address)


def is_actor(said, value):
    """The actor is the impersonated user if the finding names one, otherwise the user."""
    impersonated = said.text(("unmapped", "impersonated_user"))
    user = said.text(("evidences", 0, "actor", "user", "name"))
    return value == (user if impersonated is None else impersonated)


def is_namespace(said, value):
    """The namespace is a member of the finding's resource. If the finding has no resource, it says
    nothing about the namespace, so any value of the column is accepted."""
    return said.at(("resources", 0)) is None or value == said.text(("resources", 0, "namespace"))


def is_name(said, name, subresource):
    """The finding has the name and the subresource in one text, `<name>/<subresource>`. If there is
    no name, the type of the resource takes its place."""
    if said.at(("resources", 0)) is None:
        return True
    name = said.text(("resources", 0, "type")) if name is None else name
    return "%s%s" % (name or "", "" if subresource is None else "/" + subresource) == said.text(("resources", 0, "name"))


# Each entry is (name in reports, columns, function that returns True if these columns agree with
# the finding).
ALERT_COLUMNS = (
    ("alert_id", ("alert_id",), text_at("finding_info", "uid")),
    ("rule_id", ("rule_id",), text_at("finding_info", "analytic", "uid")),
    ("rule_name", ("rule_name",), text_at("finding_info", "analytic", "name")),
    ("title", ("title",), text_at("finding_info", "title")),
    ("severity", ("severity",), lambda said, value: value == SEVERITIES.get(said.text(("severity",)))),
    ("time", ("time",), milliseconds_at("time")),
    ("window_start", ("window_start",), milliseconds_at("start_time")),
    ("window_end", ("window_end",), milliseconds_at("end_time")),
    ("cluster", ("cluster",), text_at("unmapped", "cluster")),
    ("actor", ("actor",), is_actor),
    ("source_ip", ("source_ip",), is_source_ip),
    ("verb", ("verb",), is_verb),
    ("resource", ("resource",), text_at("resources", 0, "type")),
    ("name, subresource", ("name", "subresource"), is_name),
    ("namespace", ("namespace",), is_namespace),
    ("group_key", ("group_key",), text_or_empty_at("unmapped", "group_key")),
    ("event_count", ("event_count",), number_at("count")),
    ("audit_ids", ("audit_ids",), lambda said, value: value == said.texts(("unmapped", "audit_ids"))),
    ("tactics", ("tactics",), lambda said, value: value == tactics(said)),
    ("techniques", ("techniques",), lambda said, value: value == techniques(said)),
    ("message", ("message",), text_at("message")),
    ("next_steps", ("next_steps",), text_or_empty_at("remediation", "desc")),
    ("source", ("source",), text_at("unmapped", "source")),
    ("source_offset", ("source_offset",), number_at("unmapped", "source_offset")),
    ("namespaces", ("namespaces",), lambda said, value: value == said.texts(("unmapped", "namespaces"))),
    ("actors", ("actors",), lambda said, value: value == said.texts(("unmapped", "actors"))),
    ("clusters", ("clusters",), lambda said, value: value == said.texts(("unmapped", "clusters"))),
    ("event_ranges", ("event_ranges",), lambda said, value: value == event_ranges(said)),
)


def alert_differs(row, record):
    """Returns the columns that differ from the finding, in order; None if the record is not a
    finding."""
    if len(record) > RECORD_BYTES_MAX:
        return None
    try:
        said = Said(row.get("ocsf") or "")
    except NoRecord:
        return None
    return [name for name, columns, holds in ALERT_COLUMNS if not holds(said, *map(row.get, columns))]


# A proof of single records.


class Proof:
    """proof.md, A proof of single records: the four steps. Two kinds of findings occur only here,
    not in the check of an archive: proof_malformed and path."""

    def __init__(self, location, data, trusted, witnesses=(), quorum=None):
        self.witnesses, self.quorum = list(witnesses), len(witnesses) if quorum is None else quorum
        self.report, self.value, self.trusted, self.proven, self.places = Report(location), None, trusted, [], []
        self.seen = set()
        self.data = data

    def check(self):
        try:
            self.steps(parse_json(self.data))
        except Malformed as e:
            self.report.finding("proof_malformed", self.report.location, str(e))
        if self.report.findings:
            self.proven = []
        return self.report

    @staticmethod
    def items(value, name, optional=(), **types):
        """The list of objects of that name, each with members of the given types, and no others but
        the optional ones."""
        value = value.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise Malformed("`%s` is not a list of objects" % name)
        for i, item in enumerate(value):
            for key, kind in types.items():
                if not (is_int(item.get(key)) if kind is int else isinstance(item.get(key), kind)):
                    raise Malformed("`%s` of %s %d is missing, or of the wrong type" % (key, name, i))
            for key in item:
                if key not in types and key not in optional:
                    raise Malformed("%s is not a member of %s" % (shown(key), name))
        return value

    @staticmethod
    def at(values, place, name):
        if place >= len(values):
            raise Malformed("there are %d %s, and number %d is named" % (len(values), name, place))
        return values[place]

    def steps(self, value):
        if not isinstance(value, dict) or value.get("format") != "strongroom-proof-1":
            raise Malformed("not an object with `format` strongroom-proof-1")
        for key in value:
            if key not in ("format", "archive_id", "manifest", "keys", "checkpoints", "commits", "records"):
                raise Malformed("%s is not a member of a proof" % shown(key))
        # Step 1
        archive_id, manifest = value.get("archive_id"), parse_base64(value.get("manifest"))
        if not isinstance(archive_id, str) or not UUID.fullmatch(archive_id):
            raise Malformed("`archive_id` is not a UUID")
        texts, public_key = value.get("keys"), None
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise Malformed("`keys` is not a list of texts")
        try:
            named = parse_json(manifest)
            if not isinstance(named, dict) or named.get("archive_id") != archive_id or not is_int(named.get("format")) or named["format"] != 1:
                raise Malformed("not an object with `format` 1 and this `archive_id`")
            if "public_key" in named:
                public_key = parse_public_key(named["public_key"])
        except Malformed as e:
            self.report.finding("manifest_malformed", "manifest", str(e))
        files = [("_keys/%08d" % i, text.encode("utf-8", "surrogatepass")) for i, text in enumerate(texts, 1)]
        keys = check_keys(files, manifest, public_key, archive_id, self.trusted, self.report)
        checkpoints = [self.checkpoint(keys, archive_id, i, c) for i, c in enumerate(self.items(value, "checkpoints", optional=("part",), table=str, year=int, note=str))]
        commits = [self.commit(checkpoints, i, c) for i, c in enumerate(self.items(value, "commits", checkpoint=int, index=int, commit=str, path=list))]
        records = self.items(value, "records", optional=("redaction", "claims"), commit=int, file=str, row=int, record=str, path=list)
        if not records:
            raise Malformed("it has no record")
        for i, record in enumerate(records):
            self.record(commits, i, record)

    def checkpoint(self, keys, archive_id, i, item):
        """Step 2. Returns (checkpoint, table, volume); None if the checkpoint is not valid."""
        part = item.get("part", 0)
        if not is_int(part) or not 0 <= part <= 9999:
            raise Malformed("`part` of checkpoints %d is not a number of a part" % i)
        where, volume = "checkpoints, %d" % i, "%s/%04d" % (item["table"], item["year"])
        if part:
            volume += "-%04d" % part
        origin = "strongroom/%s/%s" % (archive_id, volume)
        try:
            checkpoint = Checkpoint(item["note"].encode("utf-8", "surrogatepass"))
        except Malformed as e:
            self.report.finding("checkpoint_malformed", where, str(e))
            return None
        if checkpoint.origin != origin or not VOLUME.fullmatch(volume):
            self.report.finding("checkpoint_origin", where, "its origin is %s, not %s" % (shown(checkpoint.origin), shown(origin)))
            return None
        try:
            signers = checkpoint.note.signers(origin, keys.all())
            if not signers:
                raise BadSignature("no key of the chain signed it")
        except BadSignature as e:
            self.report.finding("checkpoint_signature", where, str(e))
            return None
        # A retired key may have been stolen since. If it signed a smaller tree than that of the
        # `log` line, nothing in the proof shows that the smaller tree is a prefix of the larger
        # one. So for a retired key only the exact tree of the `log` line counts.
        until = keys.retired_at(max(signers, key=keys.all().index), volume)
        if until is not None and (checkpoint.size, checkpoint.root) != until:
            self.report.finding("key_retired", where, "signed by a retired key, and not the tree of the `log` line in the record that retired it")
            return None
        cosigned = 0
        for witness in (w for w in self.witnesses if w.key not in keys.all()):  # a key cannot witness its own signature
            try:
                cosigned += witness.cosigned(checkpoint.note) is not None
            except BadSignature as e:
                self.report.finding("witness_signature", where, str(e))
        self.report.count("cosignatures", cosigned)
        if cosigned < self.quorum:
            self.report.finding("witness_missing", where, "%d of the witnesses have cosigned it, %d are required" % (cosigned, self.quorum))
        self.report.count("checkpoints")
        self.report.heads.append({"log": origin, "size": checkpoint.size, "root": base64.b64encode(checkpoint.root).decode()})
        return checkpoint, item["table"], volume

    def path(self, where, size, index, leaf, path, root):
        if inclusion_root(index, size, leaf, [parse_hash(p) for p in path]) != root:
            self.report.finding("path", where, "its path does not lead to the root")
            return False
        return True

    def commit(self, checkpoints, i, item):
        """Step 3. Returns (table, volume, adds by path, index of the commit); None if the commit is
        not proven."""
        found = self.at(checkpoints, item["checkpoint"], "checkpoints")
        data, commit = parse_base64(item["commit"]), Commit("commits, %d" % i)
        if found is None or not self.path(commit.where, found[0].size, item["index"], leaf_hash(data), item["path"], found[0].root):
            return None
        for line in data.split(b"\n"):
            try:
                if line:
                    Archive.action(commit, parse_json(line))
            except Malformed as e:
                self.report.finding("commit_malformed", commit.where, str(e))
                return None
        self.report.count("commits")
        return found[1], found[2], {a.path: a for a in commit.adds}, item["index"]

    @staticmethod
    def mark_fault(table, mark, record):
        """Returns, in words, what is wrong with the mark of a record; None if the mark is right."""
        if table != "events":
            return "only events are redacted"
        if not is_redaction(mark):
            return "its `redaction` is not a redaction mark"
        return mark_differs(parse_json(mark), record)

    def record(self, commits, i, item):
        """Step 4."""
        where, found = "records, %d" % i, self.at(commits, item["commit"], "commits")
        record = parse_base64(item["record"])
        if found is None:
            return
        table, volume, adds, index = found
        add = adds.get(item["file"])
        if add is None:
            self.report.finding("file_missing", where, "its commit adds no file %s" % shown(item["file"]))
            return
        tags = add.tags if isinstance(add.tags, dict) else {}
        try:
            rows, root = parse_decimal(str(tags.get("rows"))), parse_hash(tags.get("record_root"))
        except Malformed as e:
            self.report.finding("tags", where, "tags of %s: %s" % (add.path, e))
            return
        mark = item.get("redaction")
        if mark is not None and not isinstance(mark, str):
            raise Malformed("`redaction` of records %d is not a text" % i)
        place = (volume, index, add.path, item["row"])
        if place in self.seen:
            raise Malformed("records %d is in the proof before" % i)
        self.seen.add(place)
        if self.path(where, rows, item["row"], record_hash(mark, record), item["path"], root):
            fault = None if mark is None else self.mark_fault(table, mark, record)
            if fault:
                self.report.finding("proof_malformed", where, fault)
                return
            self.report.count("records")
            self.proven.append(("%s/%s, row %d" % (volume, add.path, item["row"]), record))
            if mark is not None:
                self.report.count("redacted")
            self.places.append((volume, index, list(adds).index(add.path), item["row"], add, record, mark))


# An evidence pack.


PACK_ALWAYS = ("records.jsonl", "alerts.jsonl", "archive-files.json", "gaps.json", "store.json", "verification.json", "report.html", "VERIFY.md")
PACK_NAME = re.compile(r"proofs/[0-9]{8}\.json|commits/(?:%s)-%s\.jsonl" % ("|".join(TABLES), PERIOD), re.ASCII)
PACK_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
PACK_FIELDS = {
    "format": str, "archive_id": str, "location": str, "made": str, "program": str, "question": dict, "events_query": dict, "alerts_query": dict,
    "counts": dict, "strongroom_json": str, "keys": list, "heads": list, "signed_by": (str, type(None)), "files": list,
}  # fmt: skip
PACK_COUNTS = (
    "events_in_question", "alerts_in_question", "events", "alerts", "files", "rows_examined", "commits", "rejects_at_positions", "rejects_received",
    "events_without_time", "proofs",
)  # fmt: skip
QUERY_FIELDS, HEAD_FIELDS = {"sql": str, "rows": int, "sha256": str}, {"log": str, "size": int, "root": str, "note": str}
QUESTION_FIELDS = {"from": str, "to": str, "namespaces": list, "users": list, "where": (str, type(None)), "complete": bool}
NAMED_FIELDS = {
    "log": str, "commit": int, "file": str, "bytes": int, "rows": int, "chosen": int, "sha256": str, "record_root": str,
    "version_id": (str, type(None)), "time_min": (str, type(None)), "time_max": (str, type(None)), "offsets": dict,
}  # fmt: skip


def fields(value, name, types):
    """An object of exactly these fields, each of its type; numbers are not negative."""
    if not isinstance(value, dict) or set(value) != set(types):
        raise Malformed("%s is not an object of %s" % (name, ", ".join(types)))
    for key, kind in types.items():
        if not (is_int(value[key]) if kind is int else isinstance(value[key], kind)):
            raise Malformed("`%s` of %s is of the wrong type" % (key, name))
    return value


def micros(text):
    """Returns the microseconds since 1970 of a time in JSON; None if it is not a time. Digits after
    the sixth decimal are ignored."""
    match = PACK_TIME.fullmatch(text) if isinstance(text, str) else None
    if not match:
        return None
    try:
        at = datetime.datetime.fromisoformat(match[1]) - datetime.datetime(1970, 1, 1)
    except ValueError:
        return None
    shift = (int(match[4]) * 60 + int(match[5])) * (1 if match[3] == "+" else -1) if match[3] else 0
    return (at.days * 86400 + at.seconds - shift * 60) * 1_000_000 + int(((match[2] or "") + "000000")[:6])


def stats_of(add):
    """Returns `stats` of an `add`; an empty object if they cannot be read."""
    try:
        stats = parse_json(add.stats) if isinstance(add.stats, str) else {}
    except Malformed:
        stats = {}
    return stats if isinstance(stats, dict) else {}


def times_of(table, stats):
    """Returns the minimum and maximum time in the statistics of an `add`; None unless both are
    there."""
    bounds = [stats.get(k) for k in ("minValues", "maxValues")]
    low, high = (micros(b.get(TIME_COLUMN[table])) if isinstance(b, dict) else None for b in bounds)
    return None if low is None or high is None else (low, high)


class Pack:
    """proof.md, Checking a pack: the points, one method each, in their order."""

    def __init__(self, path, trusted, witnesses=(), quorum=None):
        self.root, self.trusted, self.report, self.progress = Root(path), trusted, Report(path), Progress()
        self.asked = {"witnesses": witnesses, "quorum": quorum}
        self.manifest, self.manifest_bytes, self.keys, self.heads, self.names, self.named = None, b"", None, [], set(), []
        self.given = {}  # (volume, commit, path) to [add, records proven]
        self.report.format = "strongroom-pack-check-1"

    def find(self, kind, where, detail):
        self.report.finding(kind, shown(where), detail)

    def check(self):
        if self.point_1_files() and self.point_2_keys():
            self.point_3_signature()
            self.point_4_and_5_records()
            if self.point_6_archive_files():
                self.point_7_counts()
                self.point_9_complete()
        self.progress.show("")
        return self.report

    def whole(self, name, limit=PROOF_BYTES_MAX):
        """Returns all bytes of a file of the pack. Raises Malformed if it is missing or too
        large."""
        try:
            data = self.root.read(name, limit)
        except NotPlain as e:
            raise Malformed(str(e))
        if data is None:
            raise Malformed("it is not there")
        return data

    def point_1_files(self):
        for name in self.root.names("."):
            below = [name]
            try:
                status = self.root.status(name)
                if status is not None and stat.S_ISDIR(status.st_mode) and name in ("proofs", "commits"):
                    below = ["%s/%s" % (name, n) for n in self.root.names(name)]
                for one in below:
                    status = self.root.status(one)
                    if status is None or not stat.S_ISREG(status.st_mode):
                        raise NotPlain("%s is not a plain file" % shown(one))
                    self.names.add(one)
            except NotPlain as e:
                self.find("pack_file_extra", name, str(e))
        try:
            self.manifest_bytes = self.whole("manifest.json")
            self.manifest = self.parsed(parse_json(self.manifest_bytes))
        except Malformed as e:
            self.find("pack_manifest", "manifest.json", str(e))
            return False
        known = {"manifest.json", "manifest.note"}
        for entry in self.manifest["files"]:
            name = entry["name"]
            if name in known or not (name in PACK_ALWAYS or PACK_NAME.fullmatch(name)):
                self.find("pack_manifest", "manifest.json", "it names %s twice, or no pack has such a file" % shown(name))
                continue
            known.add(name)
            self.progress.show("%s" % name)
            if name not in self.names:
                self.find("pack_file_missing", name, "the manifest names it")
                continue
            digest, size = hashlib.sha256(), 0
            try:
                with self.root.open(name) as file:
                    for block in iter(lambda: file.read(BLOCK_BYTES), b""):
                        digest.update(block)
                        size += len(block)
            except OSError as e:
                raise CannotCheck("cannot read %s: %s" % (name, e.strerror))
            self.report.count("files")
            if size != entry["bytes"] or digest.hexdigest() != entry["sha256"]:
                self.find("pack_file_changed", name, "its length or its SHA-256 is not the manifest's")
        for name in PACK_ALWAYS:
            if name not in known:
                self.find("pack_manifest", "manifest.json", "it does not name %s" % name)
        for name in sorted(self.names - known):
            self.find("pack_file_extra", name, "the manifest does not name it")
        return True

    @staticmethod
    def parsed(value):
        fields(value, "the manifest", PACK_FIELDS)
        if value["format"] != "strongroom-evidence-1" or not UUID.fullmatch(value["archive_id"]):
            raise Malformed("its format is not strongroom-evidence-1, or its `archive_id` is not a UUID")
        question = fields(value["question"], "`question`", QUESTION_FIELDS)
        if micros(question["from"]) is None or micros(question["to"]) is None:
            raise Malformed("the period of `question` is not valid")
        for name in ("namespaces", "users"):
            if not all(isinstance(n, str) for n in question[name]):
                raise Malformed("`%s` is not a list of names" % name)
        for name in ("events_query", "alerts_query"):
            fields(value[name], "`%s`" % name, QUERY_FIELDS)
        # `redacted` is present only if the pack has redacted records.
        counted = PACK_COUNTS + (("redacted",) if isinstance(value["counts"], dict) and "redacted" in value["counts"] else ())
        counts = fields(value["counts"], "`counts`", dict({n: int for n in counted}, received=dict))
        fields(counts["received"], "`received`", dict.fromkeys(("received", "events", "rejects", "duplicates"), int))
        if not all(isinstance(k, str) for k in value["keys"]):
            raise Malformed("`keys` is not a list of texts")
        for head in value["heads"]:
            fields(head, "a head", HEAD_FIELDS)
        for entry in value["files"]:
            fields(entry, "an entry of `files`", {"name": str, "bytes": int, "sha256": str})
        return value

    def point_2_keys(self):
        """Returns False if the keys or a head are not valid. Sets self.keys and self.heads (a dict
        from volume to checkpoint)."""
        m, proof = self.manifest, Proof("manifest.json", b"", [], **self.asked)
        self.heads = {}
        try:
            strongroom_json = parse_base64(m["strongroom_json"])
            named = parse_json(strongroom_json)
            if not isinstance(named, dict) or named.get("archive_id") != m["archive_id"]:
                raise Malformed("`strongroom_json` is of another archive")
            if not m["keys"]:
                raise Malformed("it has no key record")
            files = [("_keys/%08d" % i, text.encode("utf-8", "surrogatepass")) for i, text in enumerate(m["keys"], 1)]
            public_key = parse_public_key(named["public_key"]) if "public_key" in named else None
            self.keys = check_keys(files, strongroom_json, public_key, m["archive_id"], [], proof.report)
            for i, head in enumerate(m["heads"]):
                volume = head["log"][len("strongroom/%s/" % m["archive_id"]) :]
                match = VOLUME.fullmatch(volume)
                if not match or head["log"] != "strongroom/%s/%s" % (m["archive_id"], volume):
                    raise Malformed("head %s is not of a log of the archive" % shown(head["log"]))
                found = proof.checkpoint(self.keys, m["archive_id"], i, {"table": match[1], "year": int(match[2][:4]), "part": int(match[2][5:] or 0), "note": head["note"]})
                if found is None:
                    continue
                if (found[0].size, base64.b64encode(found[0].root).decode()) != (head["size"], head["root"]):
                    raise Malformed("head %s: it differs from its checkpoint" % head["log"])
                self.heads[volume] = found[0]
        except Malformed as e:
            self.find("pack_proof", "manifest.json", str(e))
            return False
        witnessed = [f for f in proof.report.findings if f["kind"] in ("witness_missing", "witness_signature")]
        for finding in witnessed:
            self.find(finding["kind"], "manifest.json", "%s: %s" % (finding["where"], finding["detail"]))
        wrong = [f for f in proof.report.findings if f not in witnessed]
        for finding in wrong:
            self.find("pack_proof", "manifest.json", "%s: %s: %s" % (finding["kind"], finding["where"], finding["detail"]))
        self.report.archive_id, self.report.heads = m["archive_id"], proof.report.heads
        if not self.trusted:
            self.report.skipped("whose archive it is: no public key was given (--public-key)")
        elif not set(self.trusted) & set(self.keys.all()):
            self.find("key_untrusted", "manifest.json", "none of the public keys given is in the chain of keys")
        return not wrong

    def point_3_signature(self):
        signed_by, there = self.manifest["signed_by"], "manifest.note" in self.names
        if signed_by is None and not there:
            self.report.skipped("who made the pack: it is not signed, so everything but the records is only the word of whoever gave it to you")
            return
        try:
            if not there:
                raise Malformed("the manifest names its signer, and the signature is missing")
            note, origin, newest = Note(self.whole("manifest.note", NOTE_BYTES_MAX)), "strongroom/%s/evidence" % self.manifest["archive_id"], self.keys.all()[-1]
            if note.lines != [origin, hashlib.sha256(self.manifest_bytes).hexdigest()]:
                raise Malformed("it does not name this manifest")
            if not note.signers(origin, [newest]):
                raise BadSignature("the newest key of the archive has not signed it")
            if signed_by != base64.b64encode(newest).decode():
                raise Malformed("the manifest names a key that has not signed it")
            self.report.count("signatures")
        except (Malformed, BadSignature) as e:
            self.find("pack_signature", "manifest.note", str(e))

    def point_4_and_5_records(self):
        notes = {h["note"] for h in self.manifest["heads"]}
        pieces = sorted(e["name"] for e in self.manifest["files"] if e["name"].startswith("proofs/") and e["name"] in self.names)
        files = {"events": self.lines("records.jsonl"), "alerts": self.lines("alerts.jsonl")}
        before, self.outside, self.undated = None, 0, 0
        self.span = micros(self.manifest["question"]["from"]), micros(self.manifest["question"]["to"])
        for number, name in enumerate(pieces, 1):
            self.progress.show("%s of %d" % (name, len(pieces)))
            try:
                data = self.whole(name)
                value = parse_json(data)
                if not isinstance(value, dict) or [value.get(k) for k in ("archive_id", "manifest", "keys")] != [self.manifest[k] for k in ("archive_id", "strongroom_json", "keys")]:
                    raise Malformed("its archive, strongroom.json or keys are not the manifest's")
                checkpoints = value.get("checkpoints")
                if not isinstance(checkpoints, list) or not all(isinstance(c, dict) and isinstance(c.get("note"), str) and c["note"] in notes for c in checkpoints):
                    raise Malformed("a checkpoint of it is not that of a head")
            except Malformed as e:
                self.find("pack_proof", name, str(e))
                continue
            proof = Proof(name, data, [])
            for finding in proof.check().findings:
                self.find("pack_proof", name, "%s: %s: %s" % (finding["kind"], finding["where"], finding["detail"]))
            self.report.count("proofs")
            for volume, index, at, row, add, record, mark in proof.places:
                table, _, period = volume.partition("/")
                if table not in files:
                    self.find("pack_proof", name, "it proves a record of %s" % table)
                    continue
                place = TABLES.index(table), period, index, at, row
                if before is not None and before >= place:
                    self.find("pack_order", name, "row %d of %s is not after the record before it, or occurs twice" % (row, add.path))
                before = place
                self.given.setdefault((volume, index, add.path), [add, 0])[1] += 1
                self.report.count(table)
                files[table].take(record, name)
                if mark is not None:
                    self.report.count("redacted")
                if table == "events":
                    self.point_8_time(record)
        for file in files.values():
            file.end()
        if not self.manifest["question"]["complete"]:
            if self.outside:
                self.find("pack_question", "records.jsonl", "the time of %d events is not in the requested period" % self.outside)
            if self.undated:
                self.report.skipped("whether %d events are of the period: their bytes are in a cloud's wrapper, or have no time" % self.undated)
            self.report.skipped("whether these are all records: proofs show that what is here is the archive's, not that nothing was left out")

    def lines(self, name):
        try:
            return Lines(self, name, self.root.open(name) if name in self.names else None)
        except NotPlain:
            return Lines(self, name, None)

    def point_8_time(self, record):
        try:
            value = parse_json(record)
        except Malformed:
            value = None
        at = micros(value.get("stageTimestamp")) if isinstance(value, dict) else None
        if at is None:
            self.undated += 1
        elif not self.span[0] <= at < self.span[1]:
            self.outside += 1

    def point_6_archive_files(self):
        try:
            value = fields(parse_json(self.whole("archive-files.json")), "archive-files.json", {"format": str, "files": list})
            if value["format"] != "strongroom-evidence-files-1":
                raise Malformed("its format is not strongroom-evidence-files-1")
            self.named = [fields(f, "an entry of `files`", NAMED_FIELDS) for f in value["files"]]
        except Malformed as e:
            self.find("pack_archive_files", "archive-files.json", str(e))
            return False
        unseen = dict(self.given)
        for f in self.named:
            where = "%s/%s" % (f["log"], f["file"])
            add, proven = unseen.pop((f["log"], f["commit"], f["file"]), (None, 0))
            if f["chosen"] != proven:
                self.find("pack_archive_files", "archive-files.json", "%s: %d of its records are proven, and it says %d" % (shown(where), proven, f["chosen"]))
            if add is not None and not self.same(f, add):
                self.find("pack_archive_files", "archive-files.json", "%s: it differs from its commit" % shown(where))
        for volume, index, path in unseen:
            self.find("pack_archive_files", "archive-files.json", "it leaves out %s/%s of commit %d" % (volume, path, index))
        return True

    @staticmethod
    def same(f, add):
        """Returns True if an entry states the same about a file as the commit."""
        tags = add.tags if isinstance(add.tags, dict) else {}
        try:
            stats, offsets = stats_of(add), parse_json(tags["offsets"]) if isinstance(tags.get("offsets"), str) else {}
        except Malformed:
            return False
        table = f["log"].partition("/")[0]
        low, high = micros(f["time_min"]), micros(f["time_max"])
        return (
            (f["bytes"], f["rows"], f["sha256"], f["record_root"], f["version_id"])
            == (add.size, stats.get("numRecords"), tags.get("sha256"), tags.get("record_root"), tags.get("version_id"))
            and f["offsets"] == offsets
            and times_of(table, stats) == (None if low is None or high is None else (low, high))
        )

    def point_7_counts(self):
        counts, checked = self.manifest["counts"], self.report.checked
        received = counts["received"]
        pairs = [
            ("events", counts["events"], checked["events"]),
            ("alerts", counts["alerts"], checked["alerts"]),
            ("redacted", counts.get("redacted", 0), checked.get("redacted", 0)),
            ("proofs", counts["proofs"], checked["proofs"]),
            ("files", counts["files"], len(self.named)),
            ("rows_examined", counts["rows_examined"], sum(f["rows"] for f in self.named if f["log"].startswith("events/"))),
            ("received", received["received"], received["events"] + received["rejects"] + received["duplicates"]),
            ("rows of events_query", self.manifest["events_query"]["rows"], counts["events_in_question"]),
            ("rows of alerts_query", self.manifest["alerts_query"]["rows"], counts["alerts_in_question"]),
        ]
        if not self.manifest["question"]["complete"]:
            pairs += [(n + "_in_question", counts[n + "_in_question"], checked[n]) for n in ("events", "alerts")]
        for name, said, found in pairs:
            if said != found:
                self.find("pack_counts", "manifest.json", "%s: it says %d, the pack has %d" % (name, said, found))

    def point_9_complete(self):
        if not self.manifest["question"]["complete"]:
            return
        named = {(f["log"], f["commit"], f["file"]): f for f in self.named}
        for volume, checkpoint in self.heads.items():
            name, tree = "commits/%s.jsonl" % volume.replace("/", "-", 1), MerkleTree()
            try:
                if name not in self.names:
                    raise Malformed("it is not there")
                with self.root.open(name) as file:
                    for line in iter(lambda: file.readline(2 * COMMIT_BYTES_MAX), b""):
                        value = fields(parse_json(line), "line %d" % (tree.size + 1), {"index": int, "commit": str})
                        if value["index"] != tree.size:
                            raise Malformed("line %d is not commit %d" % (tree.size + 1, tree.size))
                        self.commit_of_complete(volume.split("/")[0], volume, tree.size, parse_base64(value["commit"]), named)
                        tree.add(leaf_hash(parse_base64(value["commit"])))
                if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
                    raise Malformed("these are not the commits that the checkpoint signed")
            except (Malformed, NotPlain) as e:
                self.find("pack_complete", name, str(e))
            except OSError as e:
                raise CannotCheck("cannot read %s: %s" % (name, e.strerror))

    def commit_of_complete(self, table, volume, index, data, named):
        if table not in ("events", "alerts"):
            return
        commit = Commit("%s, commit %d" % (volume, index))
        for line in data.split(b"\n"):
            if line:
                Archive.action(commit, parse_json(line))
        for add in commit.adds:
            stats = stats_of(add)
            times = times_of(table, stats)
            if times is not None and not (times[0] < self.span[1] and times[1] >= self.span[0]):
                continue
            f = named.get((volume, index, add.path))
            if f is None:
                self.find("pack_complete", "%s/%s" % (volume, add.path), "it may hold records of the period, and is not in the pack")
            elif f["chosen"] != stats.get("numRecords"):
                self.find("pack_complete", "%s/%s" % (volume, add.path), "%d of its %s records are in the pack" % (f["chosen"], stats.get("numRecords")))


class Lines:
    """Compares records.jsonl or alerts.jsonl with the proven records, one after the other."""

    def __init__(self, pack, name, file):
        self.pack, self.name, self.file = pack, name, file

    def take(self, record, by):
        if self.file is not None and self.read(len(record) + 1) != record + b"\n":
            self.differs("it differs from what %s proves in its place" % by)

    def end(self):
        if self.file is not None:
            if self.read(1):
                self.differs("it has more than the proofs prove")
            else:
                self.file.close()

    def read(self, length):
        try:
            return self.file.read(length)
        except OSError as e:
            raise CannotCheck("cannot read %s: %s" % (self.name, e.strerror))

    def differs(self, detail):
        self.pack.find("pack_records", self.name, detail)
        self.file.close()
        self.file = None


# The command line.


def read_given(path, limit):
    """A file named on the command line."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as e:
        raise CannotCheck("cannot read %s: %s" % (path, e.strerror))
    if len(data) > limit:
        raise CannotCheck("%s has more than %d bytes" % (path, limit))
    return data


def read_report(path):
    """(where, archive id, heads) of an earlier report."""
    try:
        value = parse_json(read_given(path, PROOF_BYTES_MAX))
        if not isinstance(value, dict) or value.get("format") != "strongroom-verify-1" or not isinstance(value.get("heads"), list):
            raise Malformed("not an object with `format` strongroom-verify-1 and `heads`")
        heads = []
        for head in value["heads"]:
            if not isinstance(head, dict) or not isinstance(head.get("log"), str) or not is_int(head.get("size")):
                raise Malformed("a head without `log` and `size`")
            heads.append((head["log"], head["size"], parse_base64(head.get("root"), 32)))
            if not head["log"].startswith("strongroom/%s/" % value.get("archive_id")):
                raise Malformed("a head is of another archive than the report")
        return path, value.get("archive_id"), heads
    except Malformed as e:
        raise CannotCheck("%s is not a report of a verifier: %s" % (path, e))


def print_report(report):
    for finding in report.findings[:100]:
        print("%s: %s: %s" % (finding["kind"], shown(finding["where"]), finding["detail"]))
    if report.total > 100:
        print("… and %d more findings; --json writes them" % (report.total - 100))
    for text in report.not_checked:
        print("not checked: %s" % text)
    print("checked: %s" % (", ".join("%s %d" % (k, n) for k, n in report.checked.items()) or "nothing"))
    for head in report.heads:
        print("head: %s %d %s" % (head["log"], head["size"], head["root"]))
    print("result: %s" % ("no finding" if not report.total else "%d finding%s" % (report.total, "" if report.total == 1 else "s")))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Check a Strongroom archive, a proof of single records, or an evidence pack, without Strongroom.")
    commands = parser.add_subparsers(dest="command", required=True)
    archive = commands.add_parser("archive", help="check an archive in a folder or a bucket")
    archive.add_argument("place", metavar="DIR", help="the folder that holds strongroom.json, or s3://BUCKET/PREFIX")
    archive.add_argument("--endpoint", metavar="URL", help="address of the store of s3://…, if it is not AWS; by default AWS_ENDPOINT_URL")
    archive.add_argument("--remembered", metavar="FILE", action="append", default=[], help="a checkpoint kept elsewhere (repeatable)")
    archive.add_argument("--since", metavar="REPORT", help="an earlier report (--json), whose heads must still exist")
    archive.add_argument("--tsa-ca", metavar="FILE", help="PEM file of the authorities that timestamps must chain to; each log must then have one")
    archive.add_argument("--json", metavar="FILE", help="write the report to FILE")
    archive.add_argument("--no-rows", action="store_true", help="skip the rows inside the files, even if pyarrow is installed")
    proof = commands.add_parser("proof", help="check a proof of single records")
    proof.add_argument("place", metavar="FILE", help="the output of `strongroom prove`")
    proof.add_argument("--print", action="store_true", help="print the proven records, with control characters escaped")
    proof.add_argument("--json", metavar="FILE", help="write the report to FILE")
    pack = commands.add_parser("pack", help="check an evidence pack")
    pack.add_argument("place", metavar="DIR", help="the folder that `strongroom evidence` wrote")
    pack.add_argument("--json", metavar="FILE", help="write the report to FILE")
    for command in (archive, proof, pack):
        command.add_argument("--public-key", metavar="VKEY", action="append", default=[], help="a key you trust: a vkey or base64 (repeatable)")
        command.add_argument("--witness", metavar="VKEY", action="append", default=[], help="a witness that must have cosigned (repeatable)")
        command.add_argument("--witness-quorum", metavar="N", type=int, help="how many of the witnesses must have cosigned; by default all")
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            trusted = [parse_public_key(text) for text in options.public_key]
        except Malformed as e:
            raise CannotCheck("--public-key: %s" % e)
        try:
            witnesses = list({w.id: w for w in map(Witness, options.witness)}.values())
        except Malformed as e:
            raise CannotCheck("--witness: %s" % e)
        if len({w.key for w in witnesses}) < len(witnesses):
            raise CannotCheck("--witness: two names have the same key: they are one witness")
        if options.witness_quorum is not None and not 1 <= options.witness_quorum <= len(witnesses):
            raise CannotCheck("--witness-quorum: %d of %d witnesses is not possible" % (options.witness_quorum, len(witnesses)))
        asked = {"witnesses": witnesses, "quorum": options.witness_quorum}
        if options.command == "archive":
            remembered = [(path, read_given(path, NOTE_BYTES_MAX)) for path in options.remembered]
            since = read_report(options.since) if options.since else None
            authorities = read_authorities(options.tsa_ca) if options.tsa_ca else []
            asked.update(authorities=authorities, endpoint=options.endpoint)
            report = Archive(options.place, trusted, remembered, since, not options.no_rows, **asked).check()
        elif options.command == "pack":
            report = Pack(options.place, trusted, **asked).check()
        else:
            if not trusted:
                raise CannotCheck("a proof needs a key that you trust: --public-key VKEY")
            proof = Proof(options.place, read_given(options.place, PROOF_BYTES_MAX), trusted, **asked)
            report = proof.check()
        if options.json:
            try:
                with open(options.json, "w", encoding="ascii") as file:
                    json.dump(report.as_json(), file, indent=2)
                    file.write("\n")
            except OSError as e:
                raise CannotCheck("cannot write %s: %s" % (options.json, e.strerror))
        print_report(report)
        if options.command == "proof" and options.print:
            for where, record in proof.proven:
                print("%s: %s" % (where, shown(record.decode("utf-8", "backslashreplace"), limit=len(record) * 4)))
        return 1 if report.total else 0
    except CannotCheck as e:
        print("verify.py: %s" % e, file=sys.stderr)
        return 2
    except RecursionError as e:
        print("verify.py: input is nested too deep to be read: %s" % shown(e), file=sys.stderr)
        return 2
    except MemoryError:
        print("verify.py: not enough memory for a file that is read in one piece", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("verify.py: interrupted; no result", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output (`head`, for example) has gone, so nobody sees a result
        sys.stdout = open(os.devnull, "w")
        return 2
    except Exception as e:  # so that no bug of ours looks like a finding
        print("verify.py: a bug in the verifier, no result: %s: %s" % (type(e).__name__, shown(e)), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
