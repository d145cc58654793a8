#!/usr/bin/env python3
"""Tests of verify.py: `python3 tools/test_verify.py`. Needs only the standard library; with
pyarrow, the rows of real Parquet files are tested too.

`Writer` writes the logs of an archive as docs/proof.md describes them, with random bytes as data
files. The tests break archives in two ways: they make the writer write something wrong, or they
change files afterwards. In both cases, the check must give the kind of finding that the document
names."""

import ast
import base64
import contextlib
import datetime
import hashlib
import http.server
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse
import xml.sax.saxutils
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import verify  # noqa: E402

ID = "618892b3-51e4-47ee-94f4-1f6be70a3a6d"
START = 1_772_445_600_000  # 2026-03-02T10:00:00Z
FUZZ_ROUNDS = int(os.environ.get("VERIFY_FUZZ_ROUNDS", "2000"))
SEEDS = [hashlib.sha256(b"key %d" % i).digest() for i in range(5)]


def b64(data):
    return base64.b64encode(data).decode()


# Signing, RFC 8032 sections 5.1.5 and 5.1.6, written for the tests.


def multiply(scalar, point):
    result = verify.IDENTITY
    while scalar:
        if scalar & 1:
            result = verify.point_add(result, point)
        point, scalar = verify.point_add(point, point), scalar >> 1
    return result


def secret(seed):
    h = hashlib.sha512(seed).digest()
    return int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | (1 << 254), h[32:]


PUBLIC = {}


def public(seed):
    if seed not in PUBLIC:
        PUBLIC[seed] = verify.point_encode(multiply(secret(seed)[0], verify.BASE))
    return PUBLIC[seed]


def sign(seed, message):
    a, prefix = secret(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % verify.L
    encoded = verify.point_encode(multiply(r, verify.BASE))
    k = int.from_bytes(hashlib.sha512(encoded + public(seed) + message).digest(), "little") % verify.L
    return encoded + ((r + k * a) % verify.L).to_bytes(32, "little")


def key_id(name, seed):
    return hashlib.sha256(name.encode() + b"\n\x01" + public(seed)).digest()[:4]


def note(text, name, *seeds):
    lines = ["\u2014 %s %s\n" % (name, b64(key_id(name, s) + sign(s, text.encode()))) for s in seeds]
    return (text + "\n" + "".join(lines)).encode()


def vkey(seed, name="strongroom"):
    return "%s+%s+%s" % (name, key_id(name, seed).hex(), b64(b"\x01" + public(seed)))


def witness_id(name, seed):
    return hashlib.sha256(name.encode() + b"\n\x04" + public(seed)).digest()[:4]


def witness_vkey(seed, name="witness.example/w1"):
    return "%s+%s+%s" % (name, witness_id(name, seed).hex(), b64(b"\x04" + public(seed)))


def cosignature(text, seed, time, name="witness.example/w1"):
    """Returns a cosignature line as tlog-cosignature specifies it."""
    message = b"cosignature/v1\ntime %d\n%s" % (time, text.encode())
    return "\u2014 %s %s\n" % (name, b64(witness_id(name, seed) + time.to_bytes(8, "big") + sign(seed, message)))


# Merkle trees as RFC 6962 section 2.1 defines them, recursively.


def marked(mark, record):
    """Returns the leaf of a record with a redaction mark."""
    return (mark.encode(), record)


def mth(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        if isinstance(leaves[0], tuple):
            return hashlib.sha256(b"\2" + b"\n".join(leaves[0])).digest()
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def inclusion(m, leaves):
    """Returns the inclusion proof PATH(m, D[n]) of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return inclusion(m, leaves[:k]) + [mth(leaves[k:])]
    return inclusion(m - k, leaves[k:]) + [mth(leaves[:k])]


def put(root, rel, data):
    path = os.path.join(root, rel)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def get(root, rel):
    with open(os.path.join(root, rel), "rb") as file:
        return file.read()


class Writer:
    """Writes an archive as docs/proof.md describes it. `clock` is the time of the next commit, in
    milliseconds since 1970."""

    def __init__(self, root, keyed=True, named=True):
        self.root, self.clock, self.random, self.events_format = root, START, random.Random(7), 1
        self.commits, self.position, self.records, self.heads, self.key, self.named = {}, {}, 0, {}, SEEDS[0], {}
        manifest = {"format": 1, "archive_id": ID, "created": "2026-03-02T10:00:00Z"}
        if keyed and named:
            manifest["public_key"] = vkey(SEEDS[0])
        self.manifest = json.dumps(manifest, indent=2).encode() + b"\n"
        put(root, "strongroom.json", self.manifest)
        put(root, ".lock", b"")
        if keyed:
            self.key_record(SEEDS[0])

    def key_record(self, seed, lines=None, signers=None, **changes):
        self.records += 1
        values = {"archive": ID, "manifest": hashlib.sha256(self.manifest).hexdigest(), "time": "2026-03-02T10:00:00Z", "key": b64(public(seed))}
        before = self.key
        if self.records > 1:
            values["previous"] = b64(public(before))
        values.update(changes)
        text = "strongroom key %d\n" % self.records + "".join("%s %s\n" % v for v in values.items())
        if self.records > 1:
            text += "".join("log %s %d %s\n" % (v, *h) for v, h in sorted(self.heads.items())) if lines is None else lines
        signers = signers or ((seed,) if self.records == 1 else (before, seed))
        put(self.root, "_keys/%08d" % self.records, note(text, "strongroom/%s/keys" % ID, *signers))
        self.key = seed

    def add(self, volume, offsets, day="2026-03-02", tagged=True, data=None, **changes):
        """Writes a data file and returns its `add` action. `offsets` maps a partition to [first,
        last, rows]. `changes` has values of members of the action that replace the right ones; with
        the prefix `tag_`, values of tags."""
        data = self.random.randbytes(200) if data is None else data
        path = "date=%s/%032x.parquet" % (day, self.random.getrandbits(128))
        put(self.root, "%s/%s" % (volume, path), data)
        rows = sum(v[2] for v in offsets.values())
        tags = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "record_root": hashlib.sha256(b"records").hexdigest(),
            "rows": str(rows),
            "offsets": json.dumps(offsets),
        }
        tags.update({k[4:]: v for k, v in changes.items() if k.startswith("tag_")})
        add = {
            "path": path,
            "partitionValues": {"date": day},
            "size": len(data),
            "modificationTime": self.clock,
            "dataChange": True,
            "stats": json.dumps({"numRecords": rows, "minValues": {}, "maxValues": {}}),
            "tags": tags if tagged else None,
        }
        add.update({k: v for k, v in changes.items() if not k.startswith("tag_")})
        return {"add": add}

    def commit(self, volume, actions=(), positions=None, counts=None, checkpoint=True, info=True, raw=None, volumes=None):
        """Writes a commit. `positions` maps a partition to (next offset, records)."""
        commits = self.commits.setdefault(volume, [])
        if not commits and raw is None and not any("protocol" in a for a in actions):
            self.commits[volume] = commits
            self.append(volume, [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": {"id": "x"}}], {}, None, True)
        self.append(volume, actions, positions or {}, counts, info, raw, volumes)
        if checkpoint:
            self.checkpoint(volume)

    def append(self, volume, actions, positions, counts, info, raw=None, volumes=None):
        lines = []
        if info:
            lines.append({"commitInfo": {"timestamp": self.clock, "operation": "WRITE"}})
            if counts:
                lines[0]["commitInfo"]["strongroom"] = {"eventsFormat": self.events_format, "counts": counts}
                if volumes is not None:
                    lines[0]["commitInfo"]["strongroom"]["volumes"] = volumes
        lines += actions
        for partition, (offset, records) in positions.items():
            pairs = {"": offset, "#records": records, "#blake3.hi": -5, "#blake3.lo": 7}
            lines += [{"txn": {"appId": partition + k, "version": v}} for k, v in pairs.items()]
        data = "\n".join(map(json.dumps, lines)).encode() if raw is None else raw
        put(self.root, "%s/_delta_log/%020d.json" % (volume, len(self.commits[volume])), data)
        self.commits[volume].append(data)
        self.clock += 1000

    def checkpoint(self, volume, seed=None, size=None, tiles=True):
        seed = seed or self.key
        size = len(self.commits[volume]) if size is None else size
        origin = "strongroom/%s/%s" % (ID, volume)
        root = b64(self.root_of(volume, size))
        self.heads[volume] = size, root
        name = "%s/_tlog/checkpoint/%020d-%s" % (volume, size, key_id(origin, seed).hex())
        put(self.root, name, note("%s\n%d\n%s\n" % (origin, size, root), origin, seed))
        if tiles:
            self.tiles(volume, size)
        return name

    def cosign(self, volume, seed, size=None, time=None, name="witness.example/w1", text=None):
        """Writes a cosigned checkpoint to the place where an archive keeps it; by default, of the
        newest size."""
        size = len(self.commits[volume]) if size is None else size
        origin = "strongroom/%s/%s" % (ID, volume)
        text = text or "%s\n%d\n%s\n" % (origin, size, b64(self.root_of(volume, size)))
        line = cosignature(text, seed, self.clock // 1000 if time is None else time, name)
        where = "%s/_tlog/witness/%020d-%s" % (volume, size, witness_id(name, seed).hex())
        put(self.root, where, note(text, origin, self.key) + line.encode())
        return where

    def root_of(self, volume, size):
        return mth(self.commits[volume][:size])

    def tiles(self, volume, size):
        commits, level = self.commits[volume][:size], 0
        while size >> 8 * level:
            step = 256**level
            hashes = [mth(commits[i : i + step]) for i in range(0, size - size % step, step)]
            for n in range(0, len(hashes), 256):
                tile = hashes[n : n + 256]
                name = "%03d" % (n // 256) + ("" if len(tile) == 256 else ".p/%d" % len(tile))
                put(self.root, "%s/_tlog/tile/%d/%s" % (volume, level, name), b"".join(tile))
            level += 1

    def seal(self, year=2026, partition="file/a", events=10, rejects=0, checkpoint=True, day="2026-03-02", width=10, **changes):
        """Writes the commits of one seal: `events` events and then `rejects` rejects of one
        partition. Each record takes `width` bytes of the partition's offsets."""
        offset, records = self.position.get(partition, (0, 0))
        end = offset + (events + rejects) * width
        after = {partition: (end, records + events + rejects)}
        if rejects:
            add = self.add("rejects/%d" % year, {partition: [end - rejects * width, end - width, rejects]}, day=day)
            self.commit("rejects/%d" % year, [add], after, checkpoint=checkpoint)
        volume, actions = "events/%d" % year, []
        if events:
            actions.append(self.add(volume, {partition: [offset, offset + (events - 1) * width, events]}, day=day, **changes))
        counts = {"received": events + rejects, "events": events, "rejects": rejects, "duplicates": 0}
        self.commit(volume, actions, after, counts, checkpoint)
        self.position[partition] = after[partition]

    def check(self, **options):
        options.setdefault("now", self.clock)
        options.setdefault("trusted", [public(SEEDS[0])])
        return verify.Archive(self.root, rows=False, **options).check()


class InFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="strongroom-verify-")
        self.addCleanup(self.folder.cleanup)
        self.root = os.path.join(self.folder.name, "archive")
        os.mkdir(self.root)

    def writer(self, **options):
        return Writer(self.root, **options)

    def standard(self):
        """Writes an archive with two partitions, rejects and three seals, so that every check has
        something to examine."""
        w = self.writer()
        w.seal(events=10, rejects=2)
        w.seal(events=5, partition="kafka/t/0")
        w.seal(events=7, rejects=1)
        return w

    def kinds(self, report):
        return [f["kind"] for f in report.findings]

    def clean(self, w, **options):
        report = w.check(**options)
        self.assertEqual(report.findings, [])
        return report

    def finds(self, kind, w, **options):
        report = w.check(**options)
        self.assertIn(kind, self.kinds(report), report.findings)
        json.dumps(report.as_json())
        return report


class Ed25519(unittest.TestCase):
    # RFC 8032 section 7.1: secret key, public key, message, signature.
    VECTORS = (
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            hashlib.sha512(b"abc").hexdigest(),
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    )

    def test_rfc_8032_vectors(self):
        for seed, key, message, signature in (map(bytes.fromhex, v) for v in self.VECTORS):
            self.assertEqual(public(seed), key)
            self.assertEqual(sign(seed, message), signature)
            self.assertTrue(verify.ed25519_verify(key, message, signature))
            self.assertFalse(verify.ed25519_verify(key, message + b"x", signature))
        # RFC 8032's TEST 1024, of which only the public key is used.
        seed = bytes.fromhex("f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5")
        self.assertEqual(public(seed).hex(), "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e")

    def test_every_bit_of_a_signature_counts(self):
        _, key, message, signature = map(bytes.fromhex, self.VECTORS[2])
        for bit in range(512):
            changed = bytearray(signature)
            changed[bit // 8] ^= 1 << bit % 8
            self.assertFalse(verify.ed25519_verify(key, message, bytes(changed)), bit)

    def test_s_not_below_the_order_is_rejected(self):
        _, key, message, signature = map(bytes.fromhex, self.VECTORS[1])
        s = int.from_bytes(signature[32:], "little") + verify.L
        self.assertFalse(verify.ed25519_verify(key, message, signature[:32] + s.to_bytes(32, "little")))

    def test_points_that_are_not_canonical_are_rejected(self):
        # y = p + 1 is another encoding of the identity (y = 1). For y = 1, x is 0, which has no
        # sign, so the encoding with the sign bit is not valid.
        for y in (verify.P + 1, verify.P, 1 | 1 << 255, (1 << 256) - 1):
            self.assertIsNone(verify.point_decode(y.to_bytes(32, "little")))
        self.assertIsNone(verify.point_decode((2).to_bytes(32, "little")))  # no x for y = 2

    def test_keys_of_small_order_prove_nothing(self):
        # With the identity as the key, R = [S]B "signs" every message.
        identity = (1).to_bytes(32, "little")
        self.assertFalse(verify.ed25519_verify(identity, b"anything", verify.point_encode(verify.BASE) + (1).to_bytes(32, "little")))

    def test_lengths(self):
        _, key, message, signature = map(bytes.fromhex, self.VECTORS[0])
        self.assertFalse(verify.ed25519_verify(key[:31], message, signature))
        self.assertFalse(verify.ed25519_verify(key, message, signature + b"\0"))


class Trees(unittest.TestCase):
    def test_known_roots(self):
        """The leaves and roots that implementations of Certificate Transparency use in their tests."""
        leaves = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]
        roots = (
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        )
        for n, root in enumerate(roots, 1):
            self.assertEqual(verify.merkle_root(map(verify.leaf_hash, leaves[:n])).hex(), root)
        self.assertEqual(verify.merkle_root([]), hashlib.sha256(b"").digest())

    def test_roots_and_paths_agree_with_the_definition(self):
        leaves = [b"leaf %d" % i for i in range(70)]
        for n in range(1, 71):
            root = mth(leaves[:n])
            self.assertEqual(verify.merkle_root(map(verify.leaf_hash, leaves[:n])), root)
            for m in range(n):
                path, leaf = inclusion(m, leaves[:n]), verify.leaf_hash(leaves[m])
                self.assertEqual(verify.inclusion_root(m, n, leaf, path), root)
                if n > 1:
                    self.assertNotEqual(verify.inclusion_root((m + 1) % n, n, leaf, path), root)
                    self.assertNotEqual(verify.inclusion_root(m, n, leaf, path[:-1]), root)
                self.assertNotEqual(verify.inclusion_root(m, n, leaf, path + [root]), root)
            self.assertIsNone(verify.inclusion_root(n, n, leaf, path))

    def test_tiles_of_sizes(self):
        count = lambda size: {(l, w): len([1 for a, _, b in verify.tiles_of(size) if (a, b) == (l, w)]) for l, _, w in verify.tiles_of(size)}  # noqa: E731
        self.assertEqual(count(0), {})
        self.assertEqual(count(255), {(0, 255): 1})
        self.assertEqual(count(256), {(0, 256): 1, (1, 1): 1})
        self.assertEqual(count(257), {(0, 256): 1, (0, 1): 1, (1, 1): 1})
        self.assertEqual(count(65535), {(0, 256): 255, (0, 255): 1, (1, 255): 1})
        self.assertEqual(count(65536), {(0, 256): 256, (1, 256): 1, (2, 1): 1})
        self.assertEqual(count(65537), {(0, 256): 256, (0, 1): 1, (1, 256): 1, (2, 1): 1})
        # the example of tlog-tiles
        self.assertEqual(count(70000), {(0, 256): 273, (0, 112): 1, (1, 256): 1, (1, 17): 1, (2, 1): 1})

    def test_tile_paths(self):
        self.assertEqual(verify.tile_path(0, 1234067), "tile/0/x001/x234/067")
        self.assertEqual(verify.tile_path(2, 0, 17), "tile/2/000.p/17")
        self.assertEqual(verify.tile_path(1, 1000), "tile/1/x001/000")

    def test_levels_of_tiles(self):
        leaves = [hashlib.sha256(b"%d" % i).digest() for i in range(256 * 256 + 300)]
        levels = verify.tile_levels(leaves)
        self.assertEqual([len(level) for level in levels], [65836, 257, 1])
        tree = verify.MerkleTree()
        for leaf in leaves[:65536]:
            tree.add(leaf)
        self.assertEqual(levels[2][0], tree.root())
        self.assertEqual(levels[1][7], verify.merkle_root(leaves[7 * 256 : 8 * 256]))


class Source(unittest.TestCase):
    def test_each_name_of_the_module_has_one_value(self):
        """If a name were assigned twice, the second value would be used everywhere without
        notice."""
        with open(verify.__file__, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        self.assertGreater(len(names), 100)
        self.assertEqual(sorted({name for name in names if names.count(name) > 1}), [])


class Parsing(unittest.TestCase):
    def test_public_keys(self):
        self.assertEqual(verify.parse_public_key(vkey(SEEDS[0])), public(SEEDS[0]))
        self.assertEqual(verify.parse_public_key(b64(public(SEEDS[0]))), public(SEEDS[0]))
        good = vkey(SEEDS[0])
        for bad in ("", "+", "a+b", good[:-1], good.replace("strongroom", "strangroom"), "x" + good, good + "=", "a b+00000000+" + b64(bytes(33)), "\ud800" + good):
            with self.assertRaises(verify.Malformed, msg=bad):
                verify.parse_public_key(bad)

    def test_the_example_of_gos_documentation(self):
        """The example in the documentation of golang.org/x/mod/sumdb/note."""
        key = verify.parse_public_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
        text = (
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
            "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        )
        self.assertEqual(verify.Note(text.encode()).signers("PeterNeumann", [key]), [key])

    def test_malformed_notes(self):
        good = note("a\n", "n", SEEDS[0])
        self.assertEqual(verify.Note(good).text, b"a\n")
        for bad in (b"", b"\n", b"a\n", good[:-1], good + b"\n", good.replace(b"\n\n", b"\n"), good.replace(b"a", b"\x01"), good.replace(b"a", b"\xff")):
            with self.assertRaises(verify.Malformed, msg=bad):
                verify.Note(bad)
        # Every change must be noticed: the line has only one valid form, and its base64 only one
        # valid spelling.
        for i in range(len(good)):
            for bit in range(8):
                changed = bytearray(good)
                changed[i] ^= 1 << bit
                try:
                    signers = verify.Note(bytes(changed)).signers("n", [public(SEEDS[0])])
                except (verify.Malformed, verify.BadSignature):
                    signers = []
                self.assertEqual(signers, [], changed)
                if bit > 1:
                    break

    def test_json_that_can_be_read_in_two_ways_is_refused(self):
        for bad in (b'{"a":1,"a":2}', b"NaN", b"\xff", b"[" * 200_000, b"1" * 10_000, b"", b"{} {}", b'"\x01"'):
            with self.assertRaises(verify.Malformed):
                verify.parse_json(bad)

    def test_text_for_terminals(self):
        self.assertEqual(verify.shown("a\x1b[31m\u202eb\ud800\n"), "a\\x1b[31m\\u202eb\\ud800\\n")


class Untouched(InFolder):
    def test_one_commit(self):
        w = self.writer()
        w.commits["events/2026"] = []
        add = w.add("events/2026", {"file/a": [0, 90, 10]})
        setup = [{"protocol": {}}, {"metaData": {}}, add]
        w.commit("events/2026", setup, {"file/a": (100, 10)}, {"received": 10, "events": 10, "rejects": 0, "duplicates": 0})
        report = self.clean(w)
        self.assertEqual(report.checked["commits"], 1)
        self.assertEqual(report.heads, [{"log": "strongroom/%s/events/2026" % ID, "size": 1, "root": b64(mth(w.commits["events/2026"]))}])

    def test_standard(self):
        report = self.clean(self.standard())
        self.assertEqual(report.checked["files"], 5)
        self.assertEqual(report.as_json()["result"], "ok")

    def test_300_commits_with_checkpoints_at_the_edges_of_tiles(self):
        w = self.writer()
        for i in range(299):  # and commit 0
            w.seal(events=1, checkpoint=i + 2 in (1, 2, 254, 255, 256, 257, 258, 299, 300))
        report = self.clean(w)
        self.assertEqual(report.checked["commits"], 300)
        self.assertEqual(report.heads[0]["size"], 300)
        # A partial tile may be missing if the full tile exists. A full tile may not be missing.
        os.remove(os.path.join(self.root, "events/2026/_tlog/tile/0/000.p/255"))
        self.clean(w)
        os.remove(os.path.join(self.root, "events/2026/_tlog/tile/0/000"))
        self.finds("tile_missing", w)

    def test_two_years(self):
        w = self.writer()
        w.seal(year=2025, day="2025-12-31", events=4, rejects=2)
        w.seal(events=5, rejects=1)
        self.clean(w)

    def test_a_rotated_key(self):
        w = self.standard()
        w.key_record(SEEDS[1])
        w.seal(events=3)
        w.key_record(SEEDS[2])
        w.seal(events=3, rejects=1)
        for seed in SEEDS[:3]:
            self.clean(w, trusted=[public(SEEDS[4]), public(seed)])
        self.finds("key_untrusted", w, trusted=[public(SEEDS[4])])

    def test_same_size_signed_by_both_keys(self):
        w = self.standard()
        w.key_record(SEEDS[1])
        w.checkpoint("events/2026")
        self.clean(w)

    def test_a_key_added_later(self):
        w = self.writer(keyed=False)
        w.seal(checkpoint=False)
        report = self.clean(w, trusted=[])
        self.assertIn("the archive has no key records", " ".join(report.not_checked))
        w.key_record(SEEDS[0])
        w.checkpoint("events/2026")
        self.clean(w)

    def test_checkpoints_behind_the_commits(self):
        w = self.writer()
        w.seal()
        w.seal(checkpoint=False)
        w.seal(checkpoint=False)
        report = self.clean(w)
        self.assertIn("after the newest checkpoint", " ".join(report.not_checked))
        self.finds("unproven", w, now=w.clock + 2 * 3600 * 1000)
        self.finds("unproven", w, now=w.clock - 2 * 3600 * 1000)

    def test_a_broker_partition_that_begins_at_an_offset(self):
        w = self.writer()
        add = w.add("events/2026", {"kafka/t/3": [1_000_000, 1_000_004, 5]})
        w.commit("events/2026", [add], {"kafka/t/3": (1_000_005, 5)}, {"received": 5, "events": 5, "rejects": 0, "duplicates": 0})
        self.clean(w)

    def test_rejects_ahead_of_events_after_a_crash(self):
        w = self.writer()
        w.seal(events=5)
        add = w.add("rejects/2026", {"file/a": [60, 60, 1]})
        w.commit("rejects/2026", [add], {"file/a": (100, 10)})
        self.clean(w)
        # The offsets of the file start before the position and end after it. The number of its rows
        # before the position is unknown, so nothing is reported.
        w.commit("rejects/2026", [w.add("rejects/2026", {"file/a": [40, 120, 2]})], {"file/a": (130, 13)})
        self.clean(w)

    def test_files_without_tags(self):
        w = self.writer()
        w.seal(tagged=False)
        self.finds("tags", w)
        w = self.writer()
        w.seal(tags={"sha256": "0" * 64})
        self.finds("file_changed", w)

    def test_witnesses_are_ignored(self):
        w = self.standard()
        name = w.checkpoint("events/2026")
        put(self.root, name, get(self.root, name) + b"\xe2\x80\x94 witness.example/w " + b64(bytes(76)).encode() + b"\n")
        self.clean(w)

    def test_files_that_are_not_part_are_reported(self):
        w = self.standard()
        put(self.root, "notes.txt", b"mine")
        put(self.root, "events/2026/notes/x.txt", b"mine")
        put(self.root, "events/2026/_staging/x", b"")
        told = " ".join(self.clean(w).not_checked)
        self.assertIn("notes.txt", told)
        for path in ("events/2026/x.parquet", "events/2026/DATE=2026-03-02/a/x.Parquet", "events/2026x/x.parquet", "alerts/x.parquet"):
            put(self.root, path, b"PAR1")
            self.finds("file_unnamed", w)
            os.remove(os.path.join(self.root, path))
        put(self.root, "events/2026/_delta_log/_last_checkpoint", b'{"version":1,"size":1}')
        self.finds("delta_checkpoint", w)

    def test_remembered(self):
        w = self.writer()
        w.seal()
        kept = get(self.root, "events/2026/_tlog/checkpoint/%020d-%s" % (2, key_id("strongroom/%s/events/2026" % ID, SEEDS[0]).hex()))
        former = w.check().as_json()
        w.seal()
        heads = [(h["log"], h["size"], base64.b64decode(h["root"])) for h in former["heads"]]
        report = self.clean(w, remembered=[("kept", kept)], since=("report", ID, heads))
        self.assertEqual(report.checked["remembered"], 2)


LOG = "events/2026/_delta_log/%020d.json"
ORIGIN = "strongroom/%s/events/2026" % ID
CHECKPOINT = "events/2026/_tlog/checkpoint/%020d-" + key_id(ORIGIN, SEEDS[0]).hex()


class Tampered(InFolder):
    """Archives whose files were changed by somebody without the key."""

    def setUp(self):
        super().setUp()
        self.w = self.standard()  # events: commits 0 to 3; rejects: 0 to 2
        self.path = lambda rel: os.path.join(self.root, rel)

    def edit(self, rel, old, new):
        data = get(self.root, rel)
        self.assertIn(old, data)
        put(self.root, rel, data.replace(old, new, 1))

    def data_file(self):
        return next("events/2026/" + json.loads(l)["add"]["path"] for l in get(self.root, LOG % 1).split(b"\n") if b'"add"' in l)

    def test_manifest_changed(self):
        self.edit("strongroom.json", b"\n", b"\n ")
        self.finds("manifest_changed", self.w)

    def test_manifest_malformed(self):
        for data in (b"{", b"[]", b'{"format": 1}', b'{"format": 2, "archive_id": "%s"}' % ID.encode(), b'{"format": true, "archive_id": "%s"}' % ID.encode(), b"\xff"):
            put(self.root, "strongroom.json", data)
            self.finds("manifest_malformed", self.w)
        os.remove(self.path("strongroom.json"))
        self.finds("manifest_malformed", self.w)

    def test_key_mismatch(self):
        self.edit("strongroom.json", vkey(SEEDS[0]).encode(), vkey(SEEDS[1]).encode())
        self.finds("key_mismatch", self.w)

    def test_keys_removed(self):
        shutil.rmtree(self.path("_keys"))
        self.finds("key_record", self.w)

    def test_first_key_removed(self):
        self.w.key_record(SEEDS[1])
        os.remove(self.path("_keys/00000001"))
        self.finds("key_record", self.w)

    def test_newest_key_removed(self):
        self.w.key_record(SEEDS[1])
        self.w.seal()
        self.clean(self.w, trusted=[public(SEEDS[1])])
        os.remove(self.path("_keys/00000002"))
        self.finds("checkpoint_signature", self.w)
        self.finds("key_untrusted", self.w, trusted=[public(SEEDS[1])])

    def test_key_record_changed(self):
        self.edit("_keys/00000001", b"10:00:00Z", b"10:00:01Z")
        self.finds("key_record", self.w)

    def test_key_record_of_somebody_else(self):
        self.w.records = 0
        self.w.key_record(SEEDS[3])
        self.finds("key_untrusted", self.w)
        self.finds("checkpoint_signature", self.w)

    def test_rotation_without_the_old_key(self):
        self.w.key_record(SEEDS[3], signers=(SEEDS[3],))
        self.finds("key_record", self.w)

    def test_commit_missing(self):
        os.remove(self.path(LOG % 2))
        self.finds("commit_missing", self.w)
        self.finds("commits_cut", self.w)

    def test_commits_cut(self):
        os.remove(self.path(LOG % 3))
        self.assertEqual(set(self.kinds(self.finds("commits_cut", self.w))), {"commits_cut", "file_unnamed"})

    def test_volume_removed(self):
        shutil.rmtree(self.path("rejects/2026"))
        self.finds("rows_missing", self.w)

    def test_commit_changed(self):
        self.edit(LOG % 2, b'"rows": "5"', b'"rows": "6"')
        report = self.finds("commit_changed", self.w)
        self.assertIn({"kind": "commit_changed", "where": LOG % 2}, [{k: f[k] for k in ("kind", "where")} for f in report.findings])
        self.finds("checkpoint_root", self.w)
        self.assertNotIn("tile_changed", self.kinds(report))

    def test_commit_changed_and_its_tiles_too(self):
        self.edit(LOG % 2, b'"rows": "5"', b'"rows": "6"')
        self.w.commits["events/2026"][2] = get(self.root, LOG % 2)
        self.w.tiles("events/2026", 4)
        report = self.finds("checkpoint_root", self.w)
        self.assertNotIn("commit_changed", self.kinds(report))

    def test_commit_malformed(self):
        deep, huge = b"[" * 100_000, b'{"txn":{"appId":"a","version":%s}}' % (b"9" * 5000)
        twice, latin = b'{"add":{},"add":{}}', b'{"txn":"\xe9"}'
        for raw in (b"no json", deep, huge, twice, latin, b"", b"[]", b'{"add":[]}', b'{"add":{"path":7}}', b'{"commitInfo":{"timestamp":"now"}}', b"\n\n"):
            put(self.root, LOG % 4, raw)
            self.finds("commit_malformed", self.w)

    def test_checkpoint_origin(self):
        other = "rejects/2026/_tlog/checkpoint/%020d-%s" % (3, key_id("strongroom/%s/rejects/2026" % ID, SEEDS[0]).hex())
        shutil.copy(self.path(other), self.path(CHECKPOINT % 3))
        self.finds("checkpoint_origin", self.w)

    def test_checkpoint_renamed(self):
        os.rename(self.path(CHECKPOINT % 3), self.path(CHECKPOINT % 2 + "0"))
        self.finds("checkpoint_malformed", self.w)

    def test_checkpoint_malformed(self):
        text = "%s\n2\n%s\nmore\n" % (ORIGIN, b64(bytes(32)))
        zeros = "%s\n02\n%s\n" % (ORIGIN, b64(bytes(32)))
        for data in (b"", b"x" * (2 << 20), note(text, ORIGIN, SEEDS[0]), note(zeros, ORIGIN, SEEDS[0]), get(self.root, CHECKPOINT % 2)[:-1]):
            put(self.root, CHECKPOINT % 2, data)
            self.finds("checkpoint_malformed", self.w)

    def test_checkpoint_that_is_a_folder_or_a_link(self):
        os.remove(self.path(CHECKPOINT % 3))
        os.mkdir(self.path(CHECKPOINT % 3))
        self.finds("checkpoint_malformed", self.w)
        os.rmdir(self.path(CHECKPOINT % 3))
        os.symlink(self.path(CHECKPOINT % 2), self.path(CHECKPOINT % 3))
        self.finds("checkpoint_malformed", self.w)

    def test_checkpoint_of_a_stranger(self):
        self.w.checkpoint("events/2026", seed=SEEDS[4])
        self.finds("checkpoint_signature", self.w)

    def test_checkpoint_signature(self):
        data = get(self.root, CHECKPOINT % 4)
        line = data.split(b" ")[-1]
        broken = bytearray(base64.b64decode(line))
        broken[20] ^= 1
        put(self.root, CHECKPOINT % 4, data.replace(line, base64.b64encode(broken) + b"\n"))
        self.finds("checkpoint_signature", self.w)

    def test_tile_missing(self):
        os.remove(self.path("events/2026/_tlog/tile/0/000.p/3"))
        self.finds("tile_missing", self.w)

    def test_tile_changed(self):
        tile = "events/2026/_tlog/tile/0/000.p/4"
        data = get(self.root, tile)
        for changed in (bytes([data[0] ^ 1]) + data[1:], data[:-1], data + b"\0", b"", data[:96], bytes(1 << 20)):
            put(self.root, tile, changed)
            self.finds("tile_changed", self.w)

    def test_proof_log_removed(self):
        shutil.rmtree(self.path("events/2026/_tlog"))
        self.finds("unproven", self.w, now=self.w.clock + 2 * 3600 * 1000)

    def test_rolled_back(self):
        kept = get(self.root, CHECKPOINT % 4)
        since = ("report", ID, [(ORIGIN, 4, mth(self.w.commits["events/2026"]))])
        for rel in (LOG % 3, CHECKPOINT % 4):
            os.remove(self.path(rel))
        self.assertNotIn("commits_cut", self.kinds(self.w.check()))
        self.finds("rolled_back", self.w, remembered=[("kept", kept)])
        self.finds("rolled_back", self.w, since=since)

    def test_volume_that_was_remembered_is_gone(self):
        kept = get(self.root, CHECKPOINT % 4)
        shutil.rmtree(self.path("events"))
        self.finds("rolled_back", self.w, remembered=[("kept", kept)])

    def test_forked(self):
        self.finds("forked", self.w, remembered=[("kept", note("%s\n3\n%s\n" % (ORIGIN, b64(bytes(32))), ORIGIN, SEEDS[0]))])
        self.finds("forked", self.w, since=("report", ID, [(ORIGIN, 3, bytes(32))]))

    def test_remembered_invalid(self):
        root = b64(mth(self.w.commits["events/2026"]))
        other = ORIGIN.replace("618892b3", "718892b3")
        for data in (b"", note("%s\n4\n%s\n" % (ORIGIN, root), ORIGIN, SEEDS[4]), note("%s\n4\n%s\n" % (other, root), other, SEEDS[0])):
            self.finds("remembered_invalid", self.w, remembered=[("kept", data)])
        self.finds("remembered_invalid", self.w, since=("report", ID.replace("6", "7"), []))

    def test_file_missing(self):
        os.remove(self.path(self.data_file()))
        self.finds("file_missing", self.w)

    def test_file_that_is_a_link(self):
        file = self.path(self.data_file())
        os.rename(file, file + ".away")
        os.symlink(file + ".away", file)
        self.finds("file_missing", self.w)

    def test_day_that_is_a_link(self):
        day = self.path("events/2026/date=2026-03-02")
        os.rename(day, self.path("elsewhere"))
        os.symlink(self.path("elsewhere"), day)
        self.finds("file_missing", self.w)

    def test_file_that_is_a_pipe(self):
        file = self.path(self.data_file())
        os.remove(file)
        os.mkfifo(file)
        self.finds("file_missing", self.w)

    def test_file_size(self):
        put(self.root, self.data_file(), get(self.root, self.data_file()) + b"x")
        self.finds("file_size", self.w)

    def test_file_changed(self):
        data = bytearray(get(self.root, self.data_file()))
        data[100] ^= 4
        put(self.root, self.data_file(), bytes(data))
        self.finds("file_changed", self.w)

    def test_file_unnamed(self):
        rel = "events/2026/date=2026-03-02/%032x.parquet" % 5
        put(self.root, rel, b"x")
        os.utime(self.path(rel), (1, 1))
        self.finds("file_unnamed", self.w)
        os.utime(self.path(rel), (self.w.clock / 1000 + 60,) * 2)
        self.assertIn("which no commit names", " ".join(self.clean(self.w).not_checked))
        self.finds("file_unnamed", self.w, now=self.w.clock + 2 * 3600 * 1000)


class NamedVolumes(InFolder):
    """`volumes` in commits, which names the other volumes that existed when a commit was made."""

    NOTHING = {"received": 0, "events": 0, "rejects": 0, "duplicates": 0}

    def named(self, volumes):
        w = self.standard()
        w.commit("events/2026", [], {}, self.NOTHING, volumes=volumes)
        return w

    def test_as_long_or_longer(self):
        w = self.named({})
        w.commit("events/2026", [], {}, self.NOTHING, volumes={"rejects/2026": len(w.commits["rejects/2026"])})
        self.clean(w)
        w.seal(rejects=1)
        self.clean(w)

    def test_shorter(self):
        w = self.named({"rejects/2026": 4})
        self.assertEqual(self.kinds(self.finds("commits_cut", w)), ["commits_cut"])

    def test_gone(self):
        self.assertEqual(self.kinds(self.named({"alerts/2026": 2}).check()), ["volume_missing"])

    def test_created_in_the_meantime(self):
        w = self.named({"alerts/2026": 2})
        root, read = verify.Root, verify.Root.read
        self.addCleanup(setattr, root, "read", read)
        root.read = lambda self, rel, limit: b"{}" if rel == "alerts/2026/_delta_log/%020d.json" % 1 else read(self, rel, limit)
        self.clean(w)

    def test_reported_once(self):
        w = self.named({"alerts/2026": 2})
        w.commit("alerts/2026", [], {})
        w.key_record(SEEDS[1])
        shutil.rmtree(os.path.join(self.root, "alerts"))
        w.checkpoint("events/2026"), w.checkpoint("rejects/2026")
        self.assertEqual(self.kinds(w.check()).count("volume_missing"), 1)

    def test_no_volumes(self):
        for volumes in ({"alerts/26": 1}, {"alerts/2026": 0}, {"alerts/2026": "1"}, ["alerts/2026"], {"../2026": 1}, {"alerts/2026": True}, 7):
            w = self.named(volumes)
            self.assertEqual(self.kinds(w.check()), ["commit_malformed"], volumes)
            shutil.rmtree(self.root)
            os.mkdir(self.root)


class Witnessed(InFolder):
    """Checkpoints that witnesses have cosigned, and second histories that no witness has cosigned."""

    def setUp(self):
        super().setUp()
        self.w = self.standard()
        self.one, self.two = verify.Witness(witness_vkey(SEEDS[3])), verify.Witness(witness_vkey(SEEDS[4], "witness.example/w2"))
        self.kept = [self.w.cosign(v, SEEDS[3]) for v in ("events/2026", "rejects/2026")]

    def asked(self, *witnesses, **options):
        return {"witnesses": witnesses or (self.one,), **options}

    def test_clean(self):
        report = self.clean(self.w, **self.asked())
        self.assertEqual(report.checked["cosignatures"], 2)
        self.clean(self.w)  # no witness is given, so no cosignature is checked
        self.assertTrue(any("were not given (--witness)" in text for text in self.w.check().not_checked))

    def test_vkeys(self):
        self.assertEqual(self.one.name, "witness.example/w1")
        for wrong in (vkey(SEEDS[3]), "a", "a+b+c", witness_vkey(SEEDS[3]).replace("w1", "w2")):
            with self.assertRaises(verify.Malformed):
                verify.Witness(wrong)

    def test_quorum(self):
        self.finds("witness_missing", self.w, **self.asked(self.one, self.two))
        self.clean(self.w, **self.asked(self.one, self.two, quorum=1))
        self.w.cosign("events/2026", SEEDS[4], name="witness.example/w2")
        self.w.cosign("rejects/2026", SEEDS[4], name="witness.example/w2")
        self.clean(self.w, **self.asked(self.one, self.two))

    def test_lag(self):
        """For an hour after a cosignature, by the clock of the witness, newer commits need no
        cosignature of that witness."""
        self.w.seal()
        report = self.clean(self.w, **self.asked())
        self.assertTrue(any("not cosigned by 1 of the witnesses yet" in text for text in report.not_checked))
        self.w.clock += 3_700_000
        self.finds("witness_missing", self.w, **self.asked())

    def test_removed(self):
        os.remove(os.path.join(self.root, self.kept[1]))
        self.assertEqual(self.kinds(self.finds("witness_missing", self.w, **self.asked())), ["witness_missing"])

    def test_second_history(self):
        """Somebody with the right key makes a second history, tiles included. At first the
        cosignatures of the first history are still there; then they are removed."""
        commits = self.w.commits["events/2026"]
        commits[1] = commits[1].replace(b'"WRITE"', b'"write"')
        put(self.root, LOG % 1, commits[1])
        shutil.rmtree(os.path.join(self.root, "events/2026/_tlog/checkpoint"))
        shutil.rmtree(os.path.join(self.root, "events/2026/_tlog/tile"))
        self.w.checkpoint("events/2026")
        self.assertEqual(set(self.kinds(self.finds("forked", self.w, **self.asked()))), {"forked", "witness_missing"})
        self.finds("forked", self.w)  # the log's own key has signed both trees
        shutil.rmtree(os.path.join(self.root, "events/2026/_tlog/witness"))
        self.clean(self.w)
        self.assertEqual(self.kinds(self.finds("witness_missing", self.w, **self.asked())), ["witness_missing"])

    def test_cut(self):
        os.remove(os.path.join(self.root, LOG % 3))
        shutil.rmtree(os.path.join(self.root, "events/2026/_tlog/checkpoint"))
        self.w.commits["events/2026"].pop()
        self.w.checkpoint("events/2026")
        self.finds("commits_cut", self.w, **self.asked())

    def test_forged(self):
        """Cosignature lines that the witness did not make: by another key, over another text, with
        another time, or a plain signature instead of a cosignature."""
        name, where = "witness.example/w1", self.kept[0]
        data = get(self.root, where).decode()
        text, line = data.partition("\n\n")[0] + "\n", data.splitlines(True)[-1]
        raw = base64.b64decode(line.split(" ")[2])
        lines = [
            "\u2014 %s %s\n" % (name, b64(raw[:4] + cosigned))
            for cosigned in (
                raw[4:11] + bytes([raw[11] ^ 1]) + raw[12:],
                raw[4:12] + sign(SEEDS[4], b"cosignature/v1\ntime 1\n" + text.encode()),
                raw[4:12] + sign(SEEDS[3], text.encode()),
                raw[4:],
                raw[4:12],
                b"\xff" + raw[5:],
            )
        ]
        lines[3] = cosignature(text.replace("\n4\n", "\n5\n"), SEEDS[3], self.w.clock // 1000)
        for forged in lines:
            put(self.root, where, data.replace(line, forged).encode())
            self.finds("witness_signature", self.w, **self.asked())

    def test_misplaced(self):
        data = get(self.root, self.kept[0])
        for name in ("%020d-%s" % (3, self.one.id.hex()), "%020d-%s" % (4, "00000000"), "4-" + self.one.id.hex()):
            put(self.root, "events/2026/_tlog/witness/" + name, data)
            self.finds("witness_malformed", self.w, **self.asked())
            os.remove(os.path.join(self.root, "events/2026/_tlog/witness", name))
        for kind, data in (
            ("checkpoint_malformed", b"nothing"),
            ("checkpoint_origin", get(self.root, self.kept[1])),
            ("checkpoint_signature", data.replace(b64(key_id(ORIGIN, SEEDS[0])).encode()[:4], b"AAAA")),
        ):
            put(self.root, self.kept[0], data)
            self.finds(kind, self.w, **self.asked())

    def test_proofs_carry_cosignatures(self):
        text = "%s\n4\n%s\n" % (ORIGIN, b64(self.w.root_of("events/2026", 4)))
        signed = note(text, ORIGIN, SEEDS[0])
        rows = [b"row"]
        commits = self.w.commits["events/2026"]
        path = json.loads(commits[1].split(b"\n")[1])["add"]
        value = {
            "format": "strongroom-proof-1",
            "archive_id": ID,
            "manifest": b64(self.w.manifest),
            "keys": [get(self.root, "_keys/00000001").decode()],
            "checkpoints": [{"table": "events", "year": 2026, "note": signed.decode()}],
            "commits": [{"checkpoint": 0, "index": 1, "commit": b64(commits[1]), "path": [h.hex() for h in inclusion(1, commits)]}],
            "records": [{"commit": 0, "file": path["path"], "row": 0, "record": b64(rows[0]), "path": [], "claims": {}}],
        }

        def kinds(**options):
            report = verify.Proof("proof.json", json.dumps(value).encode(), [public(SEEDS[0])], **options).check()
            return [f["kind"] for f in report.findings if f["kind"] != "path"]

        self.assertEqual(kinds(), [])
        self.assertEqual(kinds(witnesses=[self.one]), ["witness_missing"])
        value["checkpoints"][0]["note"] += cosignature(text, SEEDS[3], 5)
        self.assertEqual(kinds(witnesses=[self.one]), [])
        self.assertEqual(kinds(witnesses=[self.one, self.two], quorum=1), [])
        self.assertEqual(kinds(witnesses=[self.one, self.two]), ["witness_missing"])
        value["checkpoints"][0]["note"] += cosignature(text.replace("4", "5"), SEEDS[3], 5)
        self.assertEqual(kinds(witnesses=[self.one]), ["witness_signature", "witness_missing"])


class Stamped(InFolder):
    """Timestamps, made by OpenSSL."""

    # RFC 6979, appendices A.2.5 and A.2.6: key, r and s of the message "sample" with SHA-256 and SHA-384.
    VECTORS = (
        ("1.2.840.10045.3.1.7", "sha256", "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6 7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
         "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"),
        ("1.3.132.0.34", "sha384",
         "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13 "
         "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720",
         "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46",
         "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"),
    )

    def test_ecdsa(self):
        for curve, digest, key, r, s in self.VECTORS:
            key, r, s = b"\x04" + bytes.fromhex(key.replace(" ", "")), int(r, 16), int(s, 16)
            hashed, n = hashlib.new(digest, b"sample").digest(), verify.CURVES[curve][3]
            good = verify.CURVES[curve], key, hashed, r, s
            self.assertTrue(verify.ecdsa_verify(*good))
            for place, wrong in ((1, key[:-1] + b"\0"), (1, key[1:]), (2, hashed[::-1]), (3, s), (3, 0), (3, n), (4, r), (4, s + n)):
                self.assertFalse(verify.ecdsa_verify(*(wrong if i == place else part for i, part in enumerate(good))))

    def test_der_is_strict(self):
        for wrong in (b"", b"\x30", b"\x30\x01", b"\x30\x81\x01\0", b"\x30\x80\0\0", b"\x1f\x01\0", b"\x30\x82\0\x80" + bytes(128)):
            with self.assertRaises(verify.Malformed):
                verify.Der(wrong).whole()
        self.assertEqual(verify.Der(bytes.fromhex("06082a8648ce3d030107")).oid(), "1.2.840.10045.3.1.7")
        for wrong in ("0600", "06022a80", "060180", "0602aa80"):
            with self.assertRaises(verify.Malformed):
                verify.Der(bytes.fromhex(wrong)).oid()

    def stamp(self, data, kind):
        """Returns a token of `openssl ts` over the data, and the certificate of its authority."""
        path = lambda name: os.path.join(self.folder.name, name)

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True)

        key = ["-newkey", "rsa:2048"] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:" + kind]
        if not os.path.exists(path("ca.pem")):
            openssl("req", "-x509", *key, "-nodes", "-keyout", path("ca.key"), "-subj", "/CN=authority", "-days", "30", "-out", path("ca.pem"), "-addext", "keyUsage=critical,keyCertSign")
            openssl("req", *key, "-nodes", "-keyout", path("tsa.key"), "-subj", "/CN=clock", "-out", path("tsa.csr"))
            put(self.folder.name, "ext", b"extendedKeyUsage=critical,timeStamping\n")
            openssl("x509", "-req", "-in", path("tsa.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial", "-days", "30", "-extfile", path("ext"), "-out", path("tsa.pem"))
            put(self.folder.name, "serial", b"01\n")
            config = "[tsa]\ndefault_tsa=t\n[t]\nserial=%s\ndefault_policy=1.2.3\ndigests=sha256\nsigner_digest=sha256\ness_cert_id_alg=sha256\n" % path("serial")
            put(self.folder.name, "tsa.cnf", config.encode())
        put(self.folder.name, "data", data)
        openssl("ts", "-query", "-data", path("data"), "-sha256", "-cert", "-out", path("query"))
        openssl("ts", "-reply", "-config", path("tsa.cnf"), "-queryfile", path("query"), "-signer", path("tsa.pem"), "-inkey", path("tsa.key"), "-token_out", "-out", path("token"))
        return get(self.folder.name, "token"), verify.read_authorities(path("ca.pem"))

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
    def test_of_openssl(self):
        for kind in ("rsa", "P-256", "P-384"):
            self.setUp()
            w = self.standard()
            names = ["%s/_tlog/checkpoint/%020d-%s" % (v, n, key_id("strongroom/%s/%s" % (ID, v), SEEDS[0]).hex()) for v, n in (("events/2026", 4), ("rejects/2026", 3))]
            places = [n.replace("/checkpoint/", "/timestamp/") + "-01234567" for n in names]
            for name, place in zip(names, places):
                token, authorities = self.stamp(get(self.root, name), kind)
                put(self.root, place, token)
            self.assertEqual(self.clean(w, authorities=authorities).checked["timestamps"], 2)
            self.assertTrue(any("--tsa-ca" in text for text in self.clean(w).not_checked))
            good = get(self.root, places[0])
            put(self.root, places[0], token)
            self.assertEqual(self.kinds(self.finds("timestamp_imprint", w, authorities=authorities)), ["timestamp_imprint", "timestamp_missing"])
            for wrong, found in (
                (good[:-1], "timestamp_malformed"),
                (b"", "timestamp_malformed"),
                (good[:-1] + bytes([good[-1] ^ 1]), "timestamp_signature"),
                (good.replace(b"\x18\x0f20", b"\x18\x0f19"), "timestamp_signature"),
            ):
                put(self.root, places[0], wrong)
                self.finds(found, w, authorities=authorities)
            os.remove(os.path.join(self.root, places[0]))
            self.assertEqual(self.kinds(self.finds("timestamp_missing", w, authorities=authorities)), ["timestamp_missing"])
            put(self.root, places[0], good)
            other = [c for c in authorities]
            for path in ("ca.pem", "ca.key"):
                os.remove(os.path.join(self.folder.name, path))
            _, other = self.stamp(b"", kind)
            self.finds("timestamp_signature", w, authorities=other)
            w.seal()
            self.assertTrue(any("the newest timestamp is of size 4" in text for text in self.clean(w, authorities=authorities).not_checked))
            # A changed byte may go unnoticed only if the signature does not cover it: versions, a
            # list of digests, and parameters.
            if kind == "P-256":
                loose = 0
                for at in range(0, len(good), 3):
                    put(self.root, places[0], good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
                    loose += not w.check(authorities=authorities).findings
                self.assertLess(loose, 12)


class Store:
    """An S3 store on a loopback port. It can also give answers that no correct store gives; the
    tests with a real store are in tests/it. `objects` maps a key to its versions, oldest first,
    each a dict of `id`, `data` (None for a delete marker), `modified`, `mode`, `until` and
    `hold`."""

    PAGE = 3  # names per page of a list
    PUT = datetime.datetime(2026, 3, 2, 10)

    def __init__(self, root, prefix):
        self.objects, self.asked, self.answers, self.denied = {}, [], [], ()
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), root)
                if name != ".lock":
                    with open(os.path.join(root, path), "rb") as file:
                        self.put(prefix + "/" + path, file.read())
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                store.asked.append((self.path, self.headers))
                trouble = store.answers.pop(0) if store.answers else None
                status, body = store.answer(self.path) if trouble is None else (trouble, b"")
                if trouble == "hang up":
                    self.close_connection = True
                    return
                if trouble in ("cut", "no XML"):
                    status, body = 200, b"<" * 100
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + (50 if trouble == "cut" else 0)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = trouble == "cut"

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.endpoint = "http://127.0.0.1:%d" % self.server.server_port

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def put(self, key, data, **changes):
        versions = self.objects.setdefault(key, [])
        version = {"id": "v%d" % len(versions), "data": data, "modified": self.PUT + datetime.timedelta(hours=len(versions)), "hold": None}
        version.update({"mode": "COMPLIANCE", "until": datetime.datetime(2032, 3, 3, 10)}, **changes)
        versions.append(version)

    def answer(self, target):
        path, _, query = target.partition("?")
        query = {k: v[0] for k, v in urllib.parse.parse_qs(query, keep_blank_values=True).items()}
        key = urllib.parse.unquote(path).partition("/bucket")[2].lstrip("/")
        if set(query) & set(self.denied):
            return 403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        if "versions" in query:
            return 200, self.versions(query)
        if "list-type" in query:
            return 200, self.names(query)
        versions = self.objects.get(key, [])
        found = next((v for v in reversed(versions) if query.get("versionId", v["id"]) == v["id"]), None)
        if found is None or found["data"] is None:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        if "retention" in query and found["mode"]:
            text = "<Retention xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Mode>%s</Mode><RetainUntilDate>%s.000Z</RetainUntilDate></Retention>"
            return 200, (text % (found["mode"], found["until"].isoformat())).encode()
        if "legal-hold" in query and found["hold"]:
            return 200, b"<LegalHold><Status>%s</Status></LegalHold>" % found["hold"].encode()
        if "retention" in query or "legal-hold" in query:
            return 404, b"<Error><Code>NoSuchObjectLockConfiguration</Code></Error>"
        return 200, found["data"]

    @staticmethod
    def quoted(key):
        return xml.sax.saxutils.escape(urllib.parse.quote(key))

    def names(self, query):
        there = sorted(k for k, v in self.objects.items() if k.startswith(query["prefix"]) and v[-1]["data"] is not None)
        cut = [(k, k[len(query["prefix"]) :].partition("/")) for k in there]
        names = sorted({query["prefix"] + name + slash for _, (name, slash, _) in cut})
        names = [n for n in names if n > query.get("continuation-token", "")]
        page, text = names[: self.PAGE], "<EncodingType>url</EncodingType>"
        for name in page:
            form = "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>" if name.endswith("/") else "<Contents><Key>%s</Key></Contents>"
            text += form % self.quoted(name)
        if len(names) > self.PAGE:
            text += "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>" % xml.sax.saxutils.escape(page[-1])
        return ("<ListBucketResult>%s</ListBucketResult>" % text).encode()

    def versions(self, query):
        everything = [(k, v) for k in sorted(self.objects) if k.startswith(query["prefix"]) for v in reversed(self.objects[k])]
        marker = query.get("key-marker"), query.get("version-id-marker")
        after = next((i + 1 for i, (k, v) in enumerate(everything) if (k, v["id"]) == marker), 0)
        page, text = everything[after : after + self.PAGE], "<EncodingType>url</EncodingType>"
        for key, v in page:
            kind = "DeleteMarker" if v["data"] is None else "Version"
            form = "<%s><Key>%s</Key><VersionId>%s</VersionId><LastModified>%s.000Z</LastModified></%s>"
            text += form % (kind, self.quoted(key), v["id"], v["modified"].isoformat(), kind)
        if after + self.PAGE < len(everything):
            form = "<IsTruncated>true</IsTruncated><NextKeyMarker>%s</NextKeyMarker><NextVersionIdMarker>%s</NextVersionIdMarker>"
            text += form % (self.quoted(page[-1][0]), page[-1][1]["id"])
        return ("<ListVersionsResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>%s</ListVersionsResult>" % text).encode()


class Buckets(InFolder):
    ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}

    def store(self, change=lambda root: None):
        self.w = self.writer()
        for _ in range(2):
            self.w.seal(events=10, rejects=2, tag_version_id="v0")
        change(self.root)
        store = Store(self.root, "some/prefix")
        self.addCleanup(store.close)
        return store

    def setUp(self):
        super().setUp()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        before, pause = dict(os.environ), verify.ASK_PAUSE_S
        os.environ.clear()
        os.environ.update(environment, **self.ENVIRONMENT)
        verify.ASK_PAUSE_S = 0

        def back():
            os.environ.clear()
            os.environ.update(before)
            verify.ASK_PAUSE_S = pause

        self.addCleanup(back)

    def check(self, store, **options):
        options = {"rows": False, "now": self.w.clock, "endpoint": store.endpoint, **options}
        return verify.Archive("s3://bucket/some/prefix/", [public(SEEDS[0])], **options).check()

    def test_signatures_are_those_of_the_vendor(self):
        """AWS, "Examples: Signature Calculations": get a bucket's lifecycle, list objects."""
        bucket = verify.Bucket("s3://examplebucket/x", None, self.ENVIRONMENT)
        bucket.host_line, at = "examplebucket.s3.amazonaws.com", datetime.datetime(2013, 5, 24)
        for query, signature in (
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ):
            signed = bucket.signed("/", query, at)["authorization"]
            credential = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            self.assertEqual(signed, credential + "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + signature)

    def test_places_and_endpoints(self):
        def asked(location, endpoint=None, **environment):
            bucket = verify.Bucket(location, endpoint, dict(self.ENVIRONMENT, **environment))
            return bucket.is_tls, bucket.host_line, bucket.start, bucket.folder("")

        self.assertEqual(asked("s3://logs/a/b", AWS_REGION="eu-west-1"), (True, "logs.s3.eu-west-1.amazonaws.com", "", "a/b/"))
        self.assertEqual(asked("s3://my.logs"), (True, "s3.us-east-1.amazonaws.com", "/my.logs", ""))
        self.assertEqual(asked("s3://logs/", "https://store:8333"), (True, "store:8333", "/logs", ""))
        self.assertEqual(asked("s3://logs/a", AWS_ENDPOINT_URL="http://[::1]:9000"), (False, "[::1]:9000", "/logs", "a/"))
        for location, endpoint in (
            ("s3://logs/../a", None),
            ("s3://lo", None),
            ("s3://logs/a?b", None),
            ("s3://logs/a", "http://store.example"),
            ("s3://logs/a", "http://127.0.0.1.example"),
            ("s3://logs/a", "ftp://store"),
            ("s3://logs/a", "https://store/path"),
            ("s3://logs/a", "https://store:port"),
            ("s3://logs/a", "http://[::1"),
            ("s3://logs/a", "https://a..b"),
        ):
            with self.assertRaises(verify.CannotCheck, msg=(location, endpoint)):
                asked(location, endpoint)
        for wrong in ({}, dict(self.ENVIRONMENT, AWS_REGION="us east"), dict(self.ENVIRONMENT, AWS_SESSION_TOKEN="a\nb")):
            with self.assertRaises(verify.CannotCheck):
                verify.Bucket("s3://logs/a", None, wrong)

    def test_untouched(self):
        store = self.store()
        local = self.clean(self.w)
        report = self.check(store)
        self.assertEqual((report.findings, report.not_checked), ([], local.not_checked))
        self.assertEqual(report.heads, local.heads)
        self.assertEqual({k: n for k, n in report.checked.items() if k not in ("objects", "locks", "tiles")}, {k: n for k, n in local.checked.items() if k != "tiles"})
        self.assertEqual(report.checked["locks"], len(store.objects))
        self.assertEqual(report.checked["objects"], len(store.objects))
        self.assertTrue(all(headers["authorization"].startswith("AWS4-HMAC-SHA256 ") for _, headers in store.asked))

    def test_what_the_store_reports_is_checked(self):
        def of(store, part):
            return next(k for k in sorted(store.objects) if part in k)

        def lock(part, **changes):
            return lambda store: store.objects[of(store, part)][0].update(changes)

        def over(part, data):
            return lambda store: store.put(of(store, part), data)

        day = datetime.timedelta(days=1)
        promised = datetime.datetime(2032, 3, 2, 10)
        for change, kinds in (
            (over("date=", b"forged"), {"shadowed"}),
            (over("date=", None), {"delete_marker"}),
            (over("_delta_log/00000000000000000002", b"{}"), {"shadowed", "commit_malformed", "checkpoint_root", "commit_changed", "unproven"}),
            (over("rejects/2026/_delta_log/00000000000000000002", None), {"delete_marker", "commits_cut", "rows_missing"}),
            (over("_tlog/tile/0/000.p/3", None), {"delete_marker", "tile_missing"}),
            (over("_tlog/tile/0/000.p/2", None), {"delete_marker"}),  # of an older checkpoint: not checked in a bucket
            (lock("date=", mode="GOVERNANCE"), {"lock_mode"}),
            (lock("strongroom.json", mode=None), {"lock_missing"}),
            (lock("_keys/", until=promised - day), {"retention_short"}),
            (lock("_keys/", until=promised), set()),
            (lock("date=", id="v9"), {"file_missing"}),
            (lock("date=", modified=datetime.datetime(9999, 1, 1)), {"retention_short"}),
            (lock("date=", mode=""), {"lock_missing"}),
            (lock("date=", mode="NONE"), {"lock_mode"}),
            (lambda store: store.put("some/prefix/_probe/1", b"", mode=None), set()),
            (lambda store: store.put("some/prefix/events/2026/date=2026-03-02/x.parquet", b"", mode=None), set()),
            (lambda store: store.put("some/prefixes/x", b"", mode=None), set()),
            (lambda store: store.put("some/prefix/events/2026/_tlog/&<x>", b"", mode=None), {"lock_missing"}),
        ):
            store = self.store()
            change(store)
            report = self.check(store)
            found = set(self.kinds(report))
            self.assertEqual(found, kinds, report.findings)
            shutil.rmtree(self.root)
            os.mkdir(self.root)

    def test_what_the_store_refuses_to_say_is_reported(self):
        store = self.store()
        for what, said in (("retention", "locks of %d objects" % len(store.objects)), ("versions", "versions and locks of objects")):
            store.denied = (what,)
            report = self.check(store)
            self.assertEqual(report.findings, [])
            self.assertTrue(any(text.startswith(said) for text in report.not_checked), report.not_checked)
            self.assertEqual(report.checked["locks"], 0, "a lock that could not be read was not checked")
        store.denied = ("list-type",)
        with self.assertRaisesRegex(verify.CannotCheck, "cannot list some/prefix/: 403 AccessDenied: no"):
            self.check(store)

    def test_holds_and_drops(self):
        kept = Kept("test_dropped")
        kept.setUp()
        self.addCleanup(kept.doCleanups)
        file = next("events/2026/" + json.loads(line)["add"]["path"] for c in kept.w.commits["events/2026"] for line in c.split(b"\n") if b'"add"' in line)
        hold = kept.hold(1, "place one", "reason a case")
        held = "strongroom held %d 1\narchive %s\nhold %s\nobject %s %s\n"
        put(kept.root, "_holds/00000001-00000001", (held % (1, ID, hashlib.sha256(hold).hexdigest(), file, "v0")).encode())
        kept.drop()
        self.w, store = kept.w, Store(kept.root, "some/prefix")
        self.addCleanup(store.close)
        of_file = store.objects["some/prefix/" + file]
        self.assertEqual(self.kinds(self.check(store)), ["hold_missing"])
        of_file[0]["hold"] = "ON"
        self.assertEqual(self.kinds(self.check(store)), [])
        # If the hold on a version is gone, this must be found even if another version of the object
        # is held.
        hold = kept.hold(2, "place two", "reason a case")
        held = held % (2, ID, hashlib.sha256(hold).hexdigest(), file, "v1")
        for name, data in (("00000002", hold), ("00000002-00000001", held.encode())):
            store.put("some/prefix/_holds/" + name, data)
        store.put("some/prefix/" + file, b"over it", hold="ON")
        of_file[0]["hold"] = "OFF"
        of_file[0]["id"], of_file[1]["id"] = "v0", "v1"
        found = self.kinds(self.check(store))
        self.assertIn("shadowed", found)
        self.assertIn("hold_missing", found)
        store.put("some/prefix/events/2018/left", b"")
        self.assertIn("drop_unfinished", self.kinds(self.check(store)))
        store.denied = ("legal-hold",)
        self.assertTrue(any("legal holds of 2 objects" in text for text in self.check(store).not_checked))

    def test_answers_that_no_good_store_gives_are_not_findings(self):
        store = self.store()
        answer = store.answer

        def cut(body):
            return body.replace(b"</ListVersionsResult>", b"<IsTruncated>true</IsTruncated></ListVersionsResult>").replace(
                b"</ListBucketResult>", b"<IsTruncated>true</IsTruncated></ListBucketResult>"
            )

        for change in (
            cut,
            lambda body: body.replace(b"ListVersionsResult", b"html"),
            lambda body: body.replace(b"ListBucketResult", b"html"),
            lambda body: b'<?xml version="1.0" encoding="foo"?>' + body if body.startswith(b"<List") else body,
            lambda body: body.replace(b"<LastModified>2026-03-02T10:00:00.000Z", b"<LastModified>2026-03-02T10:00+05:00"),
            lambda body: body.replace(b"<VersionId>v0", b"<VersionId>v 0"),
        ):
            store.PAGE = 1000
            store.answer = lambda target, change=change: (answer(target)[0], change(answer(target)[1]))
            with self.assertRaises(verify.CannotCheck):
                self.check(store)
        for status, code in ((400, "ExpiredToken"), (403, "RequestTimeTooSkewed"), (401, "x")):
            error = status, b"<Error><Code>%s</Code></Error>" % code.encode()
            store.answer = lambda target, error=error: error if "versionId" in target else answer(target)
            with self.assertRaisesRegex(verify.CannotCheck, "does not answer"):
                self.check(store)
        for code, kinds in (("InvalidArgument", ["file_missing"] * 2), ("Other", ["file_unreadable"] * 2)):
            error = 400, b"<Error><Code>%s</Code></Error>" % code.encode()
            store.answer = lambda target, error=error: error if "date%3D" in target and "versionId" in target and "retention" not in target else answer(target)
            self.assertEqual(self.kinds(self.check(store)), kinds)

    def test_a_name_that_is_listed_but_does_not_exist(self):
        for part, kind in (("_keys/00000001", "key_record"), ("_tlog/checkpoint/", "checkpoint_malformed")):
            store = self.store()
            key, answer = next(k for k in sorted(store.objects) if part in k), store.answer
            gone = "/bucket/" + urllib.parse.quote(key)
            store.answer = lambda target: (404, b"<Error><Code>NoSuchKey</Code></Error>") if target == gone else answer(target)
            self.assertIn(kind, self.kinds(self.check(store)))
            shutil.rmtree(self.root)
            os.mkdir(self.root)

    def test_a_store_in_trouble_is_retried_for_a_while(self):
        store = self.store()
        store.answers = [500, "hang up", "cut", None, 503, "cut", 429]
        self.assertEqual(self.check(store).findings, [])
        for trouble in (500, "hang up", "cut"):
            store.answers, store.asked = [trouble] * 100, []
            with self.assertRaisesRegex(verify.CannotCheck, "gives no answer"):
                self.check(store)
            self.assertEqual(len(store.asked), verify.ASK_TRIES)
        store.answers = ["no XML"]
        with self.assertRaisesRegex(verify.CannotCheck, "is not XML"):
            self.check(store)

    def test_truncated_or_added_bytes_are_noticed(self):
        store = self.store()
        key = next(k for k in sorted(store.objects) if "date=" in k)
        for data in (store.objects[key][0]["data"][:-1], store.objects[key][0]["data"] + b"x"):
            store.objects[key][0]["data"] = data
            self.assertEqual(self.kinds(self.check(store)), ["file_size"])


class WrittenWrong(InFolder):
    """Archives that are wrong although everything is signed correctly: by somebody who has the key,
    or by a program with a bug."""

    def case(self, kind, actions=(), positions=None, counts=None, volume="events/2026", clock=0, **options):
        w = self.standard()
        w.clock += clock
        actions = [a(w) if callable(a) else a for a in actions]
        counts = counts or {"received": 0, "events": 0, "rejects": 0, "duplicates": 0}
        w.commit(volume, actions, positions, counts if volume.startswith("events") else None, **options)
        return self.finds(kind, w)

    def one(self, kind, offsets=None, records=None, **changes):
        """Commits one file that continues file/a at offset 200, after 20 records. Its `add` and
        positions can be given wrong; the archive must then give a finding of this kind."""
        offsets = offsets or [200, 240, 5]
        rows = offsets[2]
        counts = {"received": rows, "events": rows, "rejects": 0, "duplicates": 0}
        add = lambda w: w.add("events/2026", {"file/a": offsets}, **changes)  # noqa: E731
        return self.case(kind, [add], {"file/a": (250, 25 if records is None else records)}, counts)

    def test_the_frame_of_these_cases_is_clean(self):
        w = self.standard()
        counts = {"received": 5, "events": 5, "rejects": 0, "duplicates": 0}
        w.commit("events/2026", [w.add("events/2026", {"file/a": [200, 240, 5]})], {"file/a": (250, 25)}, counts)
        self.clean(w)

    def test_remove(self):
        self.case("not_append_only", [{"remove": {"path": "x"}}])

    def test_second_metadata(self):
        self.case("not_append_only", [{"metaData": {"configuration": {"delta.appendOnly": "false"}}}])

    def test_clock_back(self):
        self.case("clock_back", clock=-11 * 60 * 1000)

    def test_clock_back_a_little_is_allowed(self):
        w = self.standard()
        w.clock -= 9 * 60 * 1000
        w.seal()
        self.clean(w, now=START)

    def test_wrong_year(self):
        w = self.writer()
        w.seal(year=2027)
        self.finds("wrong_year", w)

    def test_volume_reopened(self):
        w, counts = self.standard(), {"received": 0, "events": 0, "rejects": 0, "duplicates": 0}
        w.commit("events/2026", [{"txn": {"appId": verify.CLOSED, "version": 1}}], {}, counts)
        self.clean(w)
        w.commit("events/2026", [], {}, counts)
        self.finds("volume_reopened", w)

    def test_no_time(self):
        self.case("commit_malformed", info=False)

    def test_named_twice(self):
        w = self.standard()
        add = w.add("events/2026", {"file/b": [0, 10, 2]})
        counts = {"received": 2, "events": 2, "rejects": 0, "duplicates": 0}
        w.commit("events/2026", [add], {"file/b": (20, 2)}, counts)
        w.commit("events/2026", [add], {"file/b": (20, 4)}, counts)
        self.finds("file_named_twice", w)

    def test_paths(self):
        for path in ("../../etc/passwd", "/etc/passwd", "date=2026-03-02/../x.parquet", "date=2026-13-02/%032x.parquet" % 1, "date=2026-03-02/%032x.parquet\n" % 1, "file:///x", 5):
            self.folder.cleanup()
            os.makedirs(self.root)
            self.one("commit_malformed", path=path)

    def test_partition_value(self):
        self.one("statistics", partitionValues={"date": "2026-03-03"})

    def test_statistics(self):
        self.one("statistics", stats="{")

    def test_rows_and_statistics(self):
        self.one("tags", stats='{"numRecords": 6}')

    def test_tags(self):
        for tag in ({"tag_sha256": "00"}, {"tag_rows": "05"}, {"tag_rows": "6"}, {"tag_offsets": "[]"}, {"tag_offsets": '{"file/a":[240,200,5]}'}, {"tag_record_root": 7}, {"tag_record_root": "x"}):
            self.folder.cleanup()
            os.makedirs(self.root)
            self.one("tags", **tag)

    def test_tag_missing(self):
        self.one("tags", tags={"sha256": "0" * 64, "rows": "5", "record_root": "0" * 64})

    def test_position_back(self):
        self.case("position_back", [], {"file/a": (190, 20)})

    def test_records_back(self):
        self.case("position_back", [], {"file/a": (200, 19)})

    def test_overlap_before(self):
        self.one("overlap", [190, 240, 5])

    def test_overlap_behind(self):
        self.one("overlap", [200, 250, 5])

    def test_overlap_of_a_partition_without_a_position(self):
        self.case("overlap", [lambda w: w.add("events/2026", {"file/new": [0, 1, 2]})], {}, {"received": 2, "events": 2, "rejects": 0, "duplicates": 0})

    def test_rows_missing(self):
        self.one("rows_missing", records=26)

    def test_rows_extra(self):
        self.one("rows_extra", records=24)

    def test_received(self):
        self.case("counts", counts={"received": 3, "events": 0, "rejects": 2, "duplicates": 0})

    def test_counted_events(self):
        self.case("counts", counts={"received": 3, "events": 3, "rejects": 0, "duplicates": 0})

    def test_position_without_records(self):
        self.case("commit_malformed", [{"txn": {"appId": "file/z", "version": 5}}])

    def test_rejects_behind_their_position(self):
        add = lambda w: w.add("rejects/2026", {"file/a": [200, 210, 2]})  # noqa: E731
        self.case("overlap", [add], {"file/a": (210, 22)}, volume="rejects/2026")

    def activity(self, offsets=((0, 1, 2), (2, 4, 3)), records=(2, 5), nexts=(2, 5), partition="activity/a"):
        """An archive with activity records in two commits."""
        self.folder.cleanup()
        os.makedirs(self.root)
        w = self.standard()
        for (first, last, rows), at, offset in zip(offsets, records, nexts):
            w.commit("activity/2026", [w.add("activity/2026", {partition: [first, last, rows]})], {partition: (offset, at)})
        return w

    def test_activity(self):
        self.clean(self.activity())
        w = self.activity()
        # This partition is not in `events`: positions of activity are independent of those of
        # events.
        w.commit("activity/2026", [], {"activity/b": (0, 0)})
        self.clean(w)

    def test_activity_that_is_not_whole(self):
        for kind, changes in (
            ("rows_missing", {"records": (2, 6)}),
            ("rows_missing", {"offsets": ((0, 1, 2), (3, 4, 2))}),
            ("rows_missing", {"offsets": ((0, 1, 2), (3, 4, 2)), "records": (2, 4)}),
            ("rows_extra", {"records": (2, 4)}),
            ("overlap", {"offsets": ((0, 1, 2), (1, 4, 3))}),
            ("overlap", {"nexts": (2, 4)}),
            ("position_back", {"offsets": ((0, 1, 2), (0, 0, 1)), "nexts": (2, 1), "records": (2, 1)}),
        ):
            self.finds(kind, self.activity(**changes))

    def test_a_volume_of_activity_that_is_gone(self):
        w = self.activity()
        counts = {"received": 0, "events": 0, "rejects": 0, "duplicates": 0}
        w.commit("events/2026", [], {}, counts, volumes={"activity/2026": 3})
        self.clean(w)
        shutil.rmtree(os.path.join(self.root, "activity"))
        self.finds("volume_missing", w)

    def test_log_line_of_another_tree(self):
        for size, root in ((4, b64(bytes(32))), (5, b64(bytes(32)))):
            self.folder.cleanup()
            os.makedirs(self.root)
            w = self.standard()
            w.key_record(SEEDS[1], lines="log events/2026 %d %s\n" % (size, root))
            self.finds("key_record", w)

    def test_log_lines_not_sorted(self):
        w = self.standard()
        w.key_record(SEEDS[1], lines="".join("log %s %d %s\n" % (v, *h) for v, h in sorted(w.heads.items(), reverse=True)))
        self.finds("key_record", w)

    def test_key_record_fields(self):
        for change in ({"archive": ID.replace("6", "7")}, {"archive": "\u202e"}, {"time": "2026-03-02 10:00:00"}, {"previous": b64(public(SEEDS[4]))}, {"key": b64(public(SEEDS[0]))}, {"manifest": "0" * 64}, {"key": "AAAA"}):
            self.folder.cleanup()
            os.makedirs(self.root)
            w = self.standard()
            w.key_record(SEEDS[1], **change)
            self.finds("key_record", w)

    def test_retired_key(self):
        w = self.standard()
        w.key_record(SEEDS[1])
        w.key = SEEDS[0]  # stolen
        w.seal()
        self.finds("key_retired", w)
        w.checkpoint("events/2026", seed=SEEDS[1])
        self.clean(w)

    def test_retired_key_in_a_new_volume(self):
        w = self.standard()
        w.key_record(SEEDS[1])
        w.key = SEEDS[0]
        w.seal(year=2026, rejects=0, partition="file/n")
        w.commit("alerts/2026")
        self.assertEqual(self.kinds(self.finds("key_retired", w)).count("key_retired"), 2)


class Kept(InFolder):
    """Retention, holds and drops, written from docs/proof.md."""

    OLD = 1_519_984_800_000  # 2018-03-02T10:00:00Z

    def setUp(self):
        super().setUp()
        self.w = w = self.writer()
        w.clock = self.OLD
        w.seal(year=2018, events=10, rejects=2, day="2018-03-02")
        w.clock = START
        w.seal(events=5)
        self.texts = {}

    def path(self, rel):
        return os.path.join(self.root, rel)

    def record(self, rel, text, kind, *seeds):
        put(self.root, rel, note(text, "strongroom/%s/%s" % (ID, kind), *seeds) if seeds else text.encode())

    def policy(self, number, years, *seeds, **changes):
        values = {"archive": ID, "time": "2026-03-02T09:00:00Z", "years": years, "reason": "a law", **changes}
        text = "strongroom retention %d\n" % number + "".join("%s %s\n" % v for v in values.items())
        self.record("_retention/%08d" % number, text, "retention", *seeds)

    def hold(self, number, *lines, seeds=()):
        text = "strongroom hold %d\narchive %s\ntime 2026-03-02T09:00:00Z\n" % (number, ID) + "".join(line + "\n" for line in lines)
        self.record("_holds/%08d" % number, text, "holds", *seeds)
        return get(self.root, "_holds/%08d" % number)

    def held(self, number, part, record, *paths):
        text = "strongroom held %d %d\narchive %s\nhold %s\n" % (number, part, ID, hashlib.sha256(record).hexdigest())
        self.record("_holds/%08d-%08d" % (number, part), text + "".join("object %s -\n" % p for p in paths), "holds")

    def drop(self, volume="events/2018", seeds=(SEEDS[0],), remove=True, state=None, **changes):
        size, root = self.w.heads[volume]
        offsets = {"file/a": [0, 90, 10]} if volume.startswith("events") else {"file/a": [100, 110, 2]}
        state = state or {"format": "strongroom-dropped-1", "txns": {"file/a": 120, "file/a#records": 12}, "offsets": offsets}
        data, name = json.dumps(state).encode(), "_dropped/" + volume.replace("/", "-")
        values = {"archive": ID, "time": "2026-03-02T09:30:00Z", "size": size, "root": root, "files": 1, "rows": offsets["file/a"][2]}
        values.update({"last": "2018-03-03T00:00:00Z", "years": 6, "until": "2024-03-04T00:00:00Z", "state": hashlib.sha256(data).hexdigest(), "reason": "over"})
        values.update(changes)
        text = "strongroom dropped %s\n" % values.pop("of", volume) + "".join("%s %s\n" % v for v in values.items())
        put(self.root, name + ".state", data)
        self.record(name, text, "dropped", *seeds)
        if remove:
            shutil.rmtree(self.path(volume), ignore_errors=True)

    def test_dropped(self):
        self.clean(self.w)
        self.drop()
        report = self.clean(self.w)
        self.assertIn("it was dropped at 2026-03-02T09:30:00Z", " ".join(report.not_checked))
        self.drop("rejects/2018")
        self.clean(self.w)
        self.w.seal(events=3)
        self.clean(self.w)
        self.w.key_record(SEEDS[1], lines="".join("log %s %d %s\n" % (v, *h) for v, h in sorted(self.w.heads.items()) if v == "events/2026"))
        self.clean(self.w)

    def test_gone(self):
        shutil.rmtree(self.path("events/2018"))
        self.finds("rows_missing", self.w)
        self.w.key_record(SEEDS[1])
        self.finds("volume_missing", self.w)

    def test_half_there(self):
        self.drop(remove=False)
        self.assertEqual(self.kinds(self.w.check()), ["drop_unfinished"])

    def test_forged(self):
        for changes in (
            {"seeds": ()},
            {"seeds": (SEEDS[3],)},
            {"time": "2024-03-03T09:00:00Z"},
            {"time": "2026-03-02T12:00:00Z"},
            {"until": "2024-03-03T00:00:00Z"},
            {"years": 5},
            {"last": "2017-12-31T00:00:00Z"},
            {"last": "2021-03-03T00:00:00Z"},
            {"of": "events/2026"},
            {"archive": ID.replace("6", "7")},
            {"state": "0" * 64},
            {"root": "AAAA"},
            {"reason": " "},
            {"size": "04"},
            {"more": "x"},
        ):
            with self.subTest(changes):
                self.drop(**changes)
                self.finds("drop_record", self.w)
        for state in ({"x": 1}, {"format": "other", "txns": {}, "offsets": {}}, {"format": "strongroom-dropped-1", "txns": {"a": "b"}, "offsets": None}):
            self.drop(state=state)
            self.finds("drop_record", self.w)
        self.drop(state={"format": "strongroom-dropped-1", "txns": {"file/a": 120, "file/a#records": 11}, "offsets": {"file/a": [0, 90, 10]}})
        self.finds("rows_extra", self.w)
        self.drop()
        self.clean(self.w)
        os.remove(self.path("_dropped/events-2018.state"))
        self.finds("drop_record", self.w)
        put(self.root, "_dropped/notes", b"x")
        self.finds("drop_record", self.w)

    def test_dropped_with_a_retired_key(self):
        self.drop()
        self.w.key_record(SEEDS[1])  # names events/2018, which still existed
        self.finds("drop_record", self.w)
        self.drop(seeds=(SEEDS[1],))
        self.clean(self.w)

    def test_remembered(self):
        origin = "strongroom/%s/events/2018" % ID
        size, root = self.w.heads["events/2018"]
        self.drop()
        kept = lambda size, root: [("kept", note("%s\n%d\n%s\n" % (origin, size, root), origin, SEEDS[0]))]  # noqa: E731
        self.clean(self.w, remembered=kept(size, root))
        self.assertIn("is a prefix of", " ".join(self.clean(self.w, remembered=kept(1, b64(bytes(32)))).not_checked))
        self.finds("forked", self.w, remembered=kept(size, b64(bytes(32))))
        self.finds("rolled_back", self.w, remembered=kept(size + 1, root))

    def test_promises(self):
        self.policy(1, 7, SEEDS[0])
        self.policy(2, 9, SEEDS[0])
        self.clean(self.w)
        self.drop()
        self.finds("drop_record", self.w)  # because nine years were promised
        shutil.rmtree(self.path("_dropped"))
        for number, years, seeds, changes in ((3, 9, SEEDS[:1], {}), (3, 10, (), {}), (3, 10, SEEDS[3:4], {}), (3, 101, SEEDS[:1], {}), (4, 10, SEEDS[:1], {}), (3, 10, SEEDS[:1], {"more": 1})):
            self.policy(number, years, *seeds, **changes)
            self.finds("retention_record", self.w)
            os.remove(self.path("_retention/%08d" % number))

    def test_holds(self):
        file = "events/2026/" + json.loads(self.w.commits["events/2026"][1].split(b"\n")[1])["add"]["path"]
        first = self.hold(1, "place case 7", "from 2026-01-01T00:00:00Z", "namespace a b", "reason J. Doe")
        self.held(1, 1, first, file, "strongroom.json")
        self.hold(2, "place other", "reason r", seeds=(SEEDS[0],))
        report = self.clean(self.w)
        self.assertIn("1 of the records are not signed", " ".join(report.not_checked))
        self.held(1, 2, first, "events/2026/date=2026-03-02/none.parquet")
        self.finds("hold_missing", self.w)
        self.hold(3, "release case 7", "reason r")
        self.clean(self.w)
        # "other" was placed by a signed record.
        for wrong in (("release other", "reason r"), ("release case 7", "reason r"), ("release none", "reason r"), ("place other", "reason r"), ("place x", "user a", "namespace b", "reason r"), ("place x",), ("place x", "from today", "reason r")):
            self.hold(4, *wrong)
            self.finds("hold_record", self.w)
        self.hold(4, "release other", "reason r", seeds=(SEEDS[0],))
        self.clean(self.w)
        os.remove(self.path("_holds/00000004"))
        self.held(2, 1, first)
        self.finds("hold_record", self.w)
        self.held(2, 1, get(self.root, "_holds/00000002"), "../x")
        self.finds("hold_record", self.w)
        self.held(2, 2, get(self.root, "_holds/00000002"))
        os.remove(self.path("_holds/00000002-00000001"))
        self.finds("hold_record", self.w)


class Clocks(InFolder):
    """Clock records, written from docs/proof.md."""

    AHEAD = 2_222_157_600_000  # 2040-06-01T10:00:00Z

    def setUp(self):
        super().setUp()
        self.w = w = self.writer()
        w.clock = self.AHEAD
        w.seal(year=2040, events=10, rejects=2)
        w.clock = START
        w.seal(year=2040, events=5, rejects=1)

    def record(self, number, volume, first, last, made, seeds=(SEEDS[0],), **changes):
        root = b64(self.w.root_of(volume, last + 1))
        values = {"archive": ID, "time": "2026-03-02T09:30:00Z", "commits": "%s %d %d" % (volume, first, last), "root": root, "made": made, "reason": "no battery"}
        values.update(changes)
        text = "strongroom clock %s\n" % values.pop("of", number) + "".join("%s %s\n" % v for v in values.items())
        put(self.root, "_clock/%08d" % number, note(text, "strongroom/%s/clock" % ID, *seeds) if seeds else text.encode())

    KNOWN = "2026-03-02T09:00:00Z 2026-03-02T09:10:00Z"

    def explained(self, made=KNOWN):
        self.record(1, "events/2040", 0, 1, made)
        self.record(2, "rejects/2040", 0, 1, made)

    def test_explained(self):
        self.assertEqual(set(self.kinds(self.w.check())), {"clock_back", "wrong_year"})
        self.record(1, "events/2040", 0, 1, self.KNOWN)
        # The year is named by the first commit of any table; the time of each commit is its own.
        self.assertEqual(self.kinds(self.w.check()), ["clock_back"])
        for made in (self.KNOWN, "unknown"):
            self.explained(made)
            report = self.clean(self.w)
            self.assertIn("the times of commits 0 to 1 are of a wrong clock", " ".join(report.not_checked))
        # What comes later is judged as before.
        self.w.seal(year=2040, events=3)
        self.clean(self.w)
        self.w.clock -= 60 * 60 * 1000
        self.w.seal(year=2040, events=3)
        self.assertEqual(self.kinds(self.w.check(now=START)), ["clock_back"])

    def test_the_last_record_is_right(self):
        self.explained("2026-03-02T09:00:00Z 2026-03-02T09:00:00Z")
        self.record(3, "events/2040", 0, 1, "2025-03-02T09:00:00Z 2025-03-02T09:00:00Z")
        self.clean(self.w)
        # It says that commit 1 was made long before commit 0.
        self.record(4, "events/2040", 1, 1, "2024-03-02T09:00:00Z 2024-03-02T09:00:00Z")
        self.assertEqual(set(self.kinds(self.w.check())), {"clock_back", "wrong_year"})

    def test_a_year_is_not_explained_by_later_commits(self):
        self.record(1, "events/2040", 1, 1, self.KNOWN)
        self.assertEqual(set(self.kinds(self.w.check())), {"clock_back", "wrong_year"})

    def test_forged(self):
        self.explained()
        for changes in (
            {"seeds": ()},
            {"seeds": (SEEDS[3],)},
            {"of": 3},
            {"archive": ID.replace("6", "7")},
            {"time": "2026-03-02T12:00:00Z"},
            {"made": "2026-03-02T09:10:00Z 2026-03-02T09:00:00Z"},
            {"made": "2026-03-02T09:00:00Z 2026-03-02T09:31:00Z"},
            {"made": "1999-03-02T09:00:00Z 2026-03-02T09:00:00Z"},
            {"made": "2026-03-02T09:00:00Z"},
            {"made": "2026-03-02T23:59:60Z 2026-03-02T23:59:60Z"},
            {"made": ""},
            {"commits": "events/2040 1 0"},
            {"commits": "events/2040 0"},
            {"commits": "events/2040 0 01"},
            {"commits": "events/2040 0 99999999999999999999"},
            {"commits": "events/2040 0 9223372036854775808"},
            {"commits": "events/2040 0 4"},
            {"commits": "events/2039 0 1"},
            {"commits": "alerts/2040 0 0"},
            {"root": b64(bytes(32))},
            {"root": "AAAA"},
            {"reason": " "},
            {"more": "x"},
        ):
            with self.subTest(changes):
                self.record(2, "rejects/2040", 0, 1, changes.pop("made", self.KNOWN), **changes)
                self.assertEqual(set(self.kinds(self.w.check())), {"clock_record", "clock_back"})
        self.explained()
        put(self.root, "_clock/notes", b"x")
        self.assertEqual(self.kinds(self.w.check()), ["clock_record"])
        os.remove(os.path.join(self.root, "_clock/notes"))
        self.clean(self.w)
        os.remove(os.path.join(self.root, "_clock/00000001"))
        self.assertEqual(set(self.kinds(self.w.check())), {"clock_record", "clock_back", "wrong_year"})

    def test_a_retired_key_speaks_of_what_it_signed(self):
        self.explained()
        self.w.key_record(SEEDS[1])
        self.clean(self.w)
        self.w.clock = self.AHEAD
        self.w.seal(year=2040, events=3)
        self.w.clock = START
        self.w.seal(year=2040, events=3)
        self.record(3, "events/2040", 3, 3, "unknown")
        self.assertEqual(set(self.kinds(self.w.check())), {"clock_record", "clock_back"})
        self.record(3, "events/2040", 3, 3, "unknown", seeds=(SEEDS[1],))
        self.clean(self.w)

    def test_a_drop_counts_from_the_time_that_is_said(self):
        kept = Kept("test_dropped")
        kept.setUp()
        self.addCleanup(kept.folder.cleanup)
        self.w, self.root = kept.w, kept.root
        self.record(1, "events/2018", 0, 1, "2018-05-01T00:00:00Z 2018-05-02T00:00:00Z", time="2026-03-02T09:20:00Z")
        kept.clean(kept.w)
        kept.drop()
        kept.finds("drop_record", kept.w)
        kept.drop(last="2018-05-02T00:00:00Z", until="2024-05-03T00:00:00Z")
        kept.clean(kept.w)
        # When the volume was dropped, nobody had said so.
        self.w.commits["events/2018"] = kept.w.commits["events/2018"]
        self.record(1, "events/2018", 0, 1, "2018-05-01T00:00:00Z 2018-05-02T00:00:00Z", time="2026-03-02T09:40:00Z")
        kept.drop()
        kept.clean(kept.w)


class Fuzz(InFolder):
    """Every flipped bit is found, and no flipped bit causes a traceback."""

    # Files in which a flipped bit may go unnoticed. .lock, what is in _staging, and files that do
    # not belong to an archive are not read.
    # The newest commit is left out, too (`unproven` below), because no checkpoint proves it yet.
    FREE = (".lock", "_staging/", "readme.txt")

    def build(self):
        w = self.writer()
        w.seal(events=3, rejects=1)
        w.key_record(SEEDS[1])
        w.seal(events=2)
        w.seal(events=1, partition="kafka/t/0", checkpoint=False)
        put(self.root, ".lock", b"12345")
        put(self.root, "readme.txt", b"not a part")
        put(self.root, "events/2026/_staging/x", b"half a file")
        return w

    def test_flips_and_cuts(self):
        w, rng = self.build(), random.Random(1)
        self.clean(w)
        files = sorted(os.path.relpath(os.path.join(d, f), self.root) for d, _, fs in os.walk(self.root) for f in fs)
        unproven = LOG % 3
        found = 0
        for i in range(FUZZ_ROUNDS):
            rel = files[i % len(files)]
            data = get(self.root, rel)
            how, at = rng.randrange(4), rng.randrange(len(data))
            changed = bytearray(data)
            if how == 0:
                del changed[at:]
            elif how == 1:
                changed[at] = rng.choice([b for b in range(256) if b != data[at]])
            else:
                changed[at] ^= 1 << rng.randrange(8)
            put(self.root, rel, bytes(changed))
            report = w.check()
            json.dumps(report.as_json())
            if not any(free in rel for free in self.FREE) and rel != unproven:
                self.assertNotEqual(report.findings, [], "%s at %d, way %d" % (rel, at, how))
                found += 1
            put(self.root, rel, data)
        self.clean(w)
        self.assertGreater(found, FUZZ_ROUNDS // 2)

    def test_names(self):
        """A file with a strange name causes no traceback, in whichever folder it is."""
        w, rng = self.build(), random.Random(2)
        folders = ["", "_keys", "events", "events/2026", "events/2026/_delta_log", "events/2026/_tlog/checkpoint", "events/2026/date=2026-03-02", "events/2026/_tlog/tile/0"]
        names = [b"\xff\xfe", b"\xe2\x80\xae", b"a\nb", b"00000003", b"9" * 20 + b".json", b"date=x", b"x" * 255, b"2026", b"\xd9\xa2\xd9\xa0\xd9\xa2\xd9\xa6", b"000.p"]
        for _ in range(60):
            path = os.path.join(os.fsencode(os.path.join(self.root, rng.choice(folders))), rng.choice(names))
            try:
                os.mkdir(path) if rng.random() < 0.5 else os.symlink(b"/etc/passwd", path)
            except FileExistsError:
                continue
            json.dumps(w.check().as_json())
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)

    def test_values_of_every_wrong_type(self):
        """Each member of each action of a commit is replaced by each of these values."""
        w = self.writer()
        w.seal(events=3, rejects=1, checkpoint=False)
        values = [None, True, -1, 1.5, 1e300, 2**63, "", "\ud800", "x" * 1000, [], [[]], {}, {"": None}, '{"numRecords":{}}', '{"a":[0,0,"x"]}']

        def places(value, path=()):
            yield path
            for k in value if isinstance(value, dict) else ():
                yield from places(value[k], path + (k,))

        original = get(self.root, LOG % 1)
        lines = [json.loads(l) for l in original.split(b"\n")]
        for n, line in enumerate(lines):
            for path in places(line):
                for value in values:
                    copy = json.loads(json.dumps(line))
                    at = copy
                    for k in path[:-1]:
                        at = at[k]
                    if path:
                        at[path[-1]] = value
                    else:
                        copy = value
                    put(self.root, LOG % 1, b"\n".join(json.dumps(copy if i == n else l).encode() for i, l in enumerate(lines)))
                    report = w.check()
                    json.dumps(report.as_json())
                    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")):
                        verify.print_report(report)


class Proofs(InFolder):
    def setUp(self):
        super().setUp()
        w = self.w = self.writer()
        self.rows = [b'{"n":%d}' % i for i in range(9)] + [b"bell \x07 \x1b[2J"]
        w.seal(tag_record_root=mth(self.rows).hex())
        w.seal()
        w.key_record(SEEDS[1])
        w.seal()
        self.proof = self.make(4, 7)

    def make(self, size, row, seed=SEEDS[1], index=1):
        commits = self.w.commits["events/2026"][:size]
        root = b64(mth(commits))
        return {
            "format": "strongroom-proof-1",
            "archive_id": ID,
            "manifest": b64(self.w.manifest),
            "keys": [get(self.root, "_keys/%08d" % i).decode() for i in (1, 2)],
            "checkpoints": [{"table": "events", "year": 2026, "note": note("%s\n%d\n%s\n" % (ORIGIN, size, root), ORIGIN, seed).decode()}],
            "commits": [{"checkpoint": 0, "index": index, "commit": b64(commits[index]), "path": [h.hex() for h in inclusion(index, commits)]}],
            "records": [
                {
                    "commit": 0,
                    "file": json.loads(commits[index].split(b"\n")[1])["add"]["path"],
                    "row": row,
                    "record": b64(self.rows[row]),
                    "path": [h.hex() for h in inclusion(row, self.rows)],
                    "claims": {},
                }
            ],
        }

    def check(self, proof, trusted=SEEDS[0]):
        data = proof if isinstance(proof, bytes) else json.dumps(proof).encode()
        return verify.Proof("proof.json", data, [public(trusted)])

    def test_good_ones(self):
        for size, row, seed in ((4, 7, SEEDS[1]), (4, 0, SEEDS[1]), (3, 9, SEEDS[0]), (3, 1, SEEDS[1]), (2, 2, SEEDS[1])):
            proof = self.check(self.make(size, row, seed))
            self.assertEqual(proof.check().findings, [])
            self.assertEqual([r for _, r in proof.proven], [self.rows[row]])

    def test_key_retired(self):
        for size in (2, 4):
            self.assertEqual([f["kind"] for f in self.check(self.make(size, 7, SEEDS[0])).check().findings], ["key_retired"])

    def test_forged_with_a_stolen_key_that_is_retired(self):
        """A thief proves a record in a tree of their own. The tree is smaller than the one in the
        `log` line, and every path and signature in the proof is valid."""
        self.rows = [b"forged"] + self.rows[1:]
        commits = self.w.commits["events/2026"] = self.w.commits["events/2026"][:2]
        root = json.loads(commits[1].split(b"\n")[1])["add"]["tags"]["record_root"]
        commits[1] = commits[1].replace(root.encode(), mth(self.rows).hex().encode())
        for seed in SEEDS[:2]:
            proof = self.check(self.make(2, 0, SEEDS[0]), seed)
            self.assertEqual([f["kind"] for f in proof.check().findings], ["key_retired"])
            self.assertEqual(proof.proven, [])

    def test_untrusted(self):
        self.assertEqual([f["kind"] for f in self.check(self.proof, SEEDS[3]).check().findings], ["key_untrusted"])

    def test_changes(self):
        def set_at(*path):
            value, proof = path[-1], json.loads(json.dumps(self.proof))
            at = proof
            for k in path[:-2]:
                at = at[k]
            at[path[-2]] = value
            return proof

        first = self.proof["commits"][0]
        cases = (
            ("path", set_at("records", 0, "record", b64(b"forged"))),
            ("path", set_at("records", 0, "row", 6)),
            ("path", set_at("records", 0, "row", 10)),
            ("path", set_at("records", 0, "path", [])),
            ("path", set_at("commits", 0, "index", 2)),
            ("path", set_at("commits", 0, "index", 4)),
            ("path", set_at("commits", 0, "commit", b64(base64.b64decode(first["commit"]) + b" "))),
            ("file_missing", set_at("records", 0, "file", "date=2026-03-02/%032x.parquet" % 0)),
            ("checkpoint_origin", set_at("checkpoints", 0, "year", 2025)),
            ("checkpoint_malformed", set_at("checkpoints", 0, "note", "no note")),
            ("checkpoint_signature", set_at("keys", self.proof["keys"][:1])),
            ("key_record", set_at("keys", self.proof["keys"][::-1])),
            ("manifest_changed", set_at("manifest", b64(self.w.manifest + b"\n"))),
            ("manifest_malformed", set_at("manifest", b64(b"{}"))),
            ("proof_malformed", set_at("records", [])),
            ("proof_malformed", set_at("records", 0, "commit", 1)),
            ("proof_malformed", set_at("commits", 0, "checkpoint", 10**18)),
            ("proof_malformed", set_at("commits", 0, "path", ["00"])),
            ("proof_malformed", set_at("commits", 0, "path", [5])),
            ("proof_malformed", set_at("format", "strongroom-proof-2")),
            ("proof_malformed", set_at("more", 1)),
            ("proof_malformed", set_at("checkpoints", 0, "more", 1)),
            ("proof_malformed", set_at("commits", 0, "more", 1)),
            ("proof_malformed", set_at("records", 0, "more", 1)),
            ("proof_malformed", set_at("records", self.proof["records"] * 2)),
            ("proof_malformed", b"\xff"),
            ("proof_malformed", b"[" * 100_000),
        )
        for kind, proof in cases:
            proof = self.check(proof)
            self.assertIn(kind, [f["kind"] for f in proof.check().findings], kind)
            self.assertEqual(proof.proven, [])

    def test_a_redacted_record(self):
        mark = '{"policy":"0123456789abcdef","dropped":["/requestObject/data"],"tokenised":[]}'
        other = mark.replace("data", "dat")
        record = b'{"auditID":"a","requestObject":{}}'

        def kinds(sealed, said, record=record, table="events"):
            self.setUp()
            self.rows = self.rows[:3] + [record if sealed is None else marked(sealed, record)] + self.rows[4:]
            self.w.seal(tag_record_root=mth(self.rows).hex())
            leaves, commits = self.rows, self.w.commits["events/2026"]
            self.rows = [leaf[1] if isinstance(leaf, tuple) else leaf for leaf in leaves]
            proof = self.make(len(commits), 3, index=len(commits) - 1)
            proof["records"][0].update(path=[h.hex() for h in inclusion(3, leaves)], redaction=said)
            proof = self.check(proof)
            found = [f["kind"] for f in proof.check().findings]
            self.assertEqual([record] if not found else [], [r for _, r in proof.proven])
            self.assertEqual(proof.report.checked.get("redacted", 0), int(said is not None and not found))
            return found

        self.assertEqual(kinds(None, None), [])
        self.assertEqual(kinds(mark, mark), [])
        for sealed, said in ((mark, None), (mark, other), (None, mark), (mark, ""), (mark, "{}")):
            self.assertEqual(kinds(sealed, said), ["path"], said)
        self.assertEqual(kinds(mark, mark, record=b'{"auditID":"a","requestObject":{"data":{}}}'), ["proof_malformed"])
        self.assertEqual(kinds("{}", "{}"), ["proof_malformed"])
        self.assertEqual(kinds(mark, 5), ["proof_malformed"])

    def test_fuzz(self):
        rng, data = random.Random(3), json.dumps(self.proof).encode()
        for _ in range(FUZZ_ROUNDS // 4):
            changed = bytearray(data)
            changed[rng.randrange(len(data))] = rng.randrange(256)
            proof = self.check(bytes(changed))
            # A change may go unnoticed only in parts that are not proven: claims and white space.
            if not proof.check().findings:
                self.assertEqual([r for _, r in proof.proven], [self.rows[7]])


class Packs(InFolder):
    """Evidence packs, written as the document describes them. A pack has some of the ten events of
    a file, and an alert."""

    PERIOD = "2026-03-02T10:00:02.000000Z", "2026-03-02T10:00:06.000000Z"

    def setUp(self):
        super().setUp()
        w = self.w = self.writer()
        self.rows = [b'{"n":%d,"stageTimestamp":"2026-03-02T10:00:%02d.5000009Z"}' % (i, i) for i in range(10)]
        self.alerts = [b'{"alert":%d}' % i for i in range(3)]
        times = {"minValues": {"stage_timestamp": "2026-03-02T10:00:00.5Z"}, "maxValues": {"stage_timestamp": "2026-03-02T10:00:09.500000Z"}}
        w.seal(tag_record_root=mth(self.rows).hex(), stats=json.dumps(dict(times, numRecords=10)))
        add = w.add("alerts/2026", {"file/a": [0, 20, 3]}, tag_record_root=mth(self.alerts).hex())
        w.commit("alerts/2026", [add], {"file/a": (100, 10)})
        self.pack = os.path.join(self.folder.name, "pack")

    def named(self, volume, index, chosen):
        for line in self.w.commits[volume][index].split(b"\n"):
            add = json.loads(line).get("add")
            if add:
                stats, table = json.loads(add["stats"]), volume.partition("/")[0]
                low, high = (stats[k].get(verify.TIME_COLUMN[table]) for k in ("minValues", "maxValues"))
                return {
                    "log": volume, "commit": index, "file": add["path"], "bytes": add["size"], "rows": stats["numRecords"], "chosen": chosen,
                    "sha256": add["tags"]["sha256"], "record_root": add["tags"]["record_root"], "version_id": None,
                    "time_min": low and "2026-03-02T10:00:00.500000Z", "time_max": high, "offsets": json.loads(add["tags"]["offsets"]),
                }  # fmt: skip

    def proof(self, parts):
        """Returns a proof of these records. parts: list of (volume, index of the commit, all
        records of the file, rows to prove)."""
        proof = {
            "format": "strongroom-proof-1", "archive_id": ID, "manifest": b64(self.w.manifest), "keys": self.keys(), "checkpoints": [], "commits": [], "records": [],
        }  # fmt: skip
        for volume, index, records, rows in parts:
            table, _, year = volume.partition("/")
            commits = self.w.commits[volume]
            proof["checkpoints"].append({"table": table, "year": int(year), "note": self.note(volume)})
            path = [h.hex() for h in inclusion(index, commits)]
            proof["commits"].append({"checkpoint": len(proof["checkpoints"]) - 1, "index": index, "commit": b64(commits[index]), "path": path})
            for row in rows:
                path = [h.hex() for h in inclusion(row, records)]
                proof["records"].append(
                    {"commit": len(proof["commits"]) - 1, "file": self.named(volume, index, 0)["file"], "row": row, "record": b64(records[row]), "path": path, "claims": {}}
                )
        return proof

    def keys(self):
        return [get(self.root, "_keys/%08d" % i).decode() for i in range(1, self.w.records + 1)]

    def note(self, volume):
        folder = os.path.join(self.root, volume, "_tlog/checkpoint")
        return get(folder, sorted(os.listdir(folder))[-1]).decode()

    def make(self, rows=(2, 3, 4, 5), alerts=(1,), complete=False, signer=None, counts=(), files=None, manifest=(), pieces=None):
        """Writes the pack. `counts` and `manifest` have values that replace the true ones; `files`
        has additional or replaced files."""
        shutil.rmtree(self.pack, ignore_errors=True)
        parts = [("events/2026", 1, self.rows, rows), ("alerts/2026", 1, self.alerts, alerts)]
        pieces = [self.proof([p for p in parts if p[3]])] if pieces is None else pieces
        there = {
            "records.jsonl": b"".join(self.rows[r] + b"\n" for r in rows),
            "alerts.jsonl": b"".join(self.alerts[r] + b"\n" for r in alerts),
            "archive-files.json": json.dumps(
                {"format": "strongroom-evidence-files-1", "files": [self.named("events/2026", 1, len(rows)), self.named("alerts/2026", 1, len(alerts))]}
            ).encode(),
        }
        there.update({name: b"{}" for name in ("gaps.json", "store.json", "verification.json", "report.html", "VERIFY.md")})
        there.update({"proofs/%08d.json" % i: json.dumps(piece).encode() for i, piece in enumerate(pieces, 1) if piece["records"]})
        if complete:
            for volume, commits in self.w.commits.items():
                lines = [json.dumps({"index": i, "commit": b64(c)}) + "\n" for i, c in enumerate(commits)]
                there["commits/%s.jsonl" % volume.replace("/", "-")] = "".join(lines).encode()
        there.update(files or {})
        there = {name: data for name, data in there.items() if data is not None}
        heads = [
            {"log": "strongroom/%s/%s" % (ID, v), "size": len(c), "root": b64(mth(c)), "note": self.note(v)} for v, c in sorted(self.w.commits.items())
        ]
        value = {
            "format": "strongroom-evidence-1", "archive_id": ID, "location": "/a", "made": "2026-03-03T00:00:00Z", "program": "a test",
            "question": {"from": self.PERIOD[0], "to": self.PERIOD[1], "namespaces": [], "users": [], "where": None, "complete": complete},
            "events_query": {"sql": "SELECT", "rows": 4 if complete else len(rows), "sha256": "0" * 64},
            "alerts_query": {"sql": "SELECT", "rows": len(alerts), "sha256": "0" * 64},
            "counts": {
                "events_in_question": 4 if complete else len(rows), "alerts_in_question": len(alerts), "events": len(rows), "alerts": len(alerts), "files": 2,
                "rows_examined": 10, "commits": 1, "received": {"received": 10, "events": 10, "rejects": 0, "duplicates": 0}, "rejects_at_positions": 0,
                "rejects_received": 0, "events_without_time": 0, "proofs": sum(n.startswith("proofs/") for n in there),
            },
            "strongroom_json": b64(self.w.manifest), "keys": self.keys(), "heads": heads,
            "signed_by": b64(public(signer)) if signer else None,
            "files": [{"name": n, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in sorted(there.items())],
        }  # fmt: skip
        value["counts"].update(counts)
        value.update(manifest)
        data = json.dumps(value).encode()
        for name, content in {**there, "manifest.json": data}.items():
            put(self.pack, name, content)
        if signer:
            self.sign(signer, data)

    def sign(self, signer, data):
        origin = "strongroom/%s/evidence" % ID
        put(self.pack, "manifest.note", note("%s\n%s\n" % (origin, hashlib.sha256(data).hexdigest()), origin, signer))

    def found(self, trusted=SEEDS[0], **options):
        return verify.Pack(self.pack, [public(trusted)], **options).check()

    def named_kinds(self, *kinds, trusted=SEEDS[0]):
        report = self.found(trusted)
        for kind in kinds:
            self.assertIn(kind, self.kinds(report), report.findings)
        self.assertEqual(bool(kinds), bool(report.findings), report.findings)
        json.dumps(report.as_json())
        return report

    def test_good_ones(self):
        self.make(signer=SEEDS[0])
        report = self.named_kinds()
        self.assertEqual((report.checked["events"], report.checked["alerts"], report.checked["signatures"]), (4, 1, 1))
        self.assertIn("all records", " ".join(report.not_checked))
        self.make()
        self.assertIn("not signed", " ".join(self.named_kinds().not_checked))
        self.make(rows=range(10), alerts=range(3), complete=True)
        self.assertNotIn("all records", " ".join(self.named_kinds().not_checked))
        self.make(rows=(), alerts=())
        self.assertEqual(self.named_kinds().checked["proofs"], 0)

    def test_pieces(self):
        pieces = [self.proof([("events/2026", 1, self.rows, [r])]) for r in (2, 3, 4, 5)] + [self.proof([("alerts/2026", 1, self.alerts, [1])])]
        self.make(pieces=pieces)
        self.assertEqual(self.named_kinds().checked["proofs"], 5)
        self.make(pieces=pieces[1:] + pieces[:1])
        self.named_kinds("pack_order", "pack_records")

    def test_cosigned(self):
        def witness(seed, name):
            return verify.Witness(witness_vkey(seed, name))

        one, two = witness(SEEDS[2], "witness.example/w1"), witness(SEEDS[3], "witness.example/w2")
        notes = {}
        for volume in ("events/2026", "alerts/2026"):
            text = self.note(volume)
            checkpoint = text.partition("\n\n")[0] + "\n"
            notes[volume] = text + cosignature(checkpoint, SEEDS[2], 5, one.name) + cosignature(checkpoint, SEEDS[3], 6, two.name)
        self.note = notes.__getitem__
        self.make()
        self.assertEqual(self.kinds(self.found()), [])
        report = self.found(witnesses=[one, two])
        self.assertEqual(self.kinds(report), [])
        three = witness(SEEDS[4], "witness.example/w3")
        self.assertEqual(set(self.kinds(self.found(witnesses=[one, three]))), {"witness_missing"})
        self.assertEqual(self.kinds(self.found(witnesses=[one, three], quorum=1)), [])
        # A key of the archive itself is not a witness.
        self.assertEqual(set(self.kinds(self.found(witnesses=[witness(SEEDS[0], "witness.example/w1")]))), {"witness_missing"})
        # A cosignature line under the name of a witness, over another text.
        other = cosignature("another text\n", SEEDS[2], 5, one.name)
        notes["alerts/2026"] = notes["alerts/2026"].partition("\u2014 witness")[0] + other
        self.make()
        self.assertIn("witness_signature", self.kinds(self.found(witnesses=[one], quorum=1)))

    def test_after_a_rotation(self):
        self.w.key_record(SEEDS[1])
        for volume in ("events/2026", "alerts/2026"):
            self.w.checkpoint(volume)
        # There are two checkpoints of the same size, one by each key. Take the one by the new key.
        self.note = lambda v: get(self.root, "%s/_tlog/checkpoint/%020d-%s" % (v, len(self.w.commits[v]), key_id("strongroom/%s/%s" % (ID, v), SEEDS[1]).hex())).decode()
        self.make(signer=SEEDS[1])
        for seed in SEEDS[:2]:
            self.named_kinds(trusted=seed)
        self.make(signer=SEEDS[0])
        self.named_kinds("pack_signature")

    def test_what_was_done(self):
        other, piece = {"records": [{}]}, self.proof([("events/2026", 1, self.rows, [2, 3, 4, 5]), ("alerts/2026", 1, self.alerts, [1])])
        forged, swapped, twice = (json.loads(json.dumps(piece)) for _ in range(3))
        forged["records"][0]["record"] = b64(b"{}")
        swapped["records"][0], swapped["records"][1] = swapped["records"][1], swapped["records"][0]
        twice["records"].insert(0, twice["records"][0])
        files = {"format": "strongroom-evidence-files-1", "files": [self.named("events/2026", 1, 4), self.named("alerts/2026", 1, 1)]}

        def listed(**change):
            value = json.loads(json.dumps(files))
            value["files"][0].update(change)
            return {"archive-files.json": json.dumps(value).encode()}

        cases = (
            ("pack_records", dict(files={"records.jsonl": b""})),
            ("pack_records", dict(files={"records.jsonl": b"\n".join(self.rows[2:6]) + b"\n{}\n"})),
            ("pack_records", dict(files={"alerts.jsonl": b"{}\n"})),
            ("pack_proof", dict(pieces=[forged])),
            ("pack_proof", dict(pieces=[other])),
            ("pack_proof", dict(files={"proofs/00000002.json": b"[" * 100_000})),
            ("pack_proof", dict(files={"proofs/00000002.json": b"\xff"})),
            ("pack_order", dict(pieces=[swapped])),
            ("pack_proof", dict(pieces=[twice])),
            ("pack_archive_files", dict(files=listed(chosen=3))),
            ("pack_archive_files", dict(files=listed(rows=11))),
            ("pack_archive_files", dict(files=listed(record_root="0" * 64))),
            ("pack_archive_files", dict(files=listed(version_id="x"))),
            ("pack_archive_files", dict(files=listed(time_max="2026-03-02T10:00:09.500001Z"))),
            ("pack_archive_files", dict(files=listed(offsets={}))),
            ("pack_archive_files", dict(files=listed(more=1))),
            ("pack_archive_files", dict(files={"archive-files.json": b"[]"})),
            ("pack_counts", dict(counts={"events": 5})),
            ("pack_counts", dict(counts={"events_in_question": 5})),
            ("pack_counts", dict(counts={"rows_examined": 9})),
            ("pack_counts", dict(counts={"received": {"received": 1, "events": 10, "rejects": 0, "duplicates": 0}})),
            ("pack_question", dict(rows=(1, 2))),
            ("pack_question", dict(rows=(5, 6))),
            ("pack_complete", dict(complete=True)),
            ("pack_complete", dict(rows=range(10), alerts=range(3), complete=True, files={"commits/events-2026.jsonl": None})),
            ("pack_complete", dict(rows=range(10), alerts=range(3), complete=True, files={"commits/alerts-2026.jsonl": b""})),
            ("pack_complete", dict(rows=range(10), alerts=(), complete=True)),
            ("pack_manifest", dict(manifest={"format": "strongroom-evidence-2"})),
            ("pack_manifest", dict(manifest={"archive_id": 5})),
            ("pack_manifest", dict(manifest={"files": [{"name": "../x", "bytes": 0, "sha256": ""}]})),
            ("pack_manifest", dict(manifest={"question": {}})),
            ("pack_manifest", dict(manifest={"approved": True})),
            ("pack_manifest", dict(files={"report.html": None})),
            ("pack_proof", dict(manifest={"keys": []})),
            ("pack_proof", dict(manifest={"strongroom_json": b64(b"{}")})),
            ("pack_proof", dict(manifest={"heads": []})),
            ("pack_signature", dict(manifest={"signed_by": b64(public(SEEDS[0]))})),
            ("pack_signature", dict(signer=SEEDS[3])),
            ("pack_signature", dict(signer=SEEDS[0], manifest={"signed_by": None})),
            ("key_untrusted", dict(trusted=SEEDS[3])),
        )
        for kind, options in cases:
            trusted = options.pop("trusted", SEEDS[0])
            with self.subTest(kind=kind, **options):
                self.make(**options)
                self.named_kinds(kind, trusted=trusted)

    def test_files(self):
        def removed():
            os.remove(os.path.join(self.pack, "gaps.json"))

        def linked():
            removed()
            os.symlink("store.json", os.path.join(self.pack, "gaps.json"))

        def piped():
            removed()
            os.mkfifo(os.path.join(self.pack, "gaps.json"))

        for kind, change in (
            ("pack_file_missing", removed),
            ("pack_file_missing", linked),
            ("pack_file_extra", piped),
            ("pack_file_extra", lambda: put(self.pack, "more", b"")),
            ("pack_file_extra", lambda: put(self.pack, "proofs/more", b"")),
            ("pack_file_extra", lambda: put(self.pack, "more/more", b"")),
            ("pack_file_changed", lambda: put(self.pack, "report.html", b"x")),
            ("pack_file_changed", lambda: put(self.pack, "records.jsonl", b"")),
            ("pack_manifest", lambda: os.remove(os.path.join(self.pack, "manifest.json"))),
            ("pack_manifest", lambda: put(self.pack, "manifest.json", b"{")),
            ("pack_signature", lambda: os.remove(os.path.join(self.pack, "manifest.note"))),
            ("pack_signature", lambda: put(self.pack, "manifest.note", b"no note")),
            ("pack_signature", lambda: self.sign(SEEDS[0], b"another manifest")),
        ):
            self.make(signer=SEEDS[0])
            change()
            self.named_kinds(kind)

    def test_fuzz(self):
        """Every changed byte of a signed pack is found, and no changed byte causes a traceback."""
        self.make(signer=SEEDS[0])
        rng, names = random.Random(11), []
        for folder, _, files in os.walk(self.pack):
            names += [os.path.relpath(os.path.join(folder, f), self.pack) for f in files]
        for _ in range(FUZZ_ROUNDS // 20):
            name = rng.choice(sorted(names))
            data = bytearray(get(self.pack, name))
            at = rng.randrange(len(data))
            before = data[at]
            data[at] = (before + rng.randrange(1, 256)) % 256
            put(self.pack, name, bytes(data))
            self.assertTrue(self.found().findings, (name, at, data[at]))
            data[at] = before
            put(self.pack, name, bytes(data))
        self.named_kinds()


class CommandLine(InFolder):
    def run_main(self, *arguments):
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = verify.main(list(arguments))
        out.flush()
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def test_exit_codes(self):
        w = self.standard()
        report = os.path.join(self.folder.name, "report.json")
        arguments = ["archive", self.root, "--no-rows", "--public-key"]
        # These commits are old, but a checkpoint covers all of them, so there is no finding.
        self.assertEqual(self.run_main(*arguments, vkey(SEEDS[0]), "--json", report)[0], 0)
        with open(report) as file:
            self.assertEqual(json.load(file)["result"], "ok")
        self.assertEqual(self.run_main(*arguments, vkey(SEEDS[0]), "--since", report)[0], 0)
        code, out, _ = self.run_main(*arguments, vkey(SEEDS[1]))
        self.assertEqual((code, "key_untrusted" in out), (1, True))
        for bad in ([*arguments, "nonsense"], ["archive", self.root + "/none"], ["archive", self.root, "--remembered", "/none"], ["archive", self.root, "--since", __file__], ["proof", "/none", "--public-key", vkey(SEEDS[0])], ["proof", report]):
            code, _, err = self.run_main(*bad)
            self.assertEqual((code, err.count("\n")), (2, 1), bad)
        self.assertEqual(self.run_main("proof", report, "--public-key", vkey(SEEDS[0]))[0], 1)
        del w

    def test_records_are_printed_without_control_characters(self):
        proofs = Proofs("test_good_ones")
        proofs.setUp()
        self.addCleanup(proofs.doCleanups)
        path = os.path.join(self.folder.name, "proof.json")
        with open(path, "w") as file:
            json.dump(proofs.make(4, 9), file)
        code, out, _ = self.run_main("proof", path, "--public-key", b64(public(SEEDS[1])), "--print")
        self.assertEqual(code, 0)
        self.assertIn("row 9: bell \\x07 \\x1b[2J\n", out)
        self.assertNotIn("\x1b", out)


class Golden(unittest.TestCase):
    """An archive that an earlier version of the program wrote (tests/data/format-1). The result of
    a check must be the same as at that time."""

    FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "data", "format-1")

    @classmethod
    def setUpClass(cls):
        with open(os.path.join(cls.FOLDER, "expected.json"), encoding="utf-8") as file:
            cls.expected = json.load(file)
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        with tarfile.open(os.path.join(cls.FOLDER, "archive.tar")) as tar:
            for member in tar:
                # Writes the files without tarfile's extract, which has no safe filters in Python
                # 3.9. So modes are lost; nothing here depends on them.
                if member.isdir():
                    os.makedirs(os.path.join(cls.folder.name, member.name))
                else:
                    put(cls.folder.name, member.name, tar.extractfile(member).read())
        cls.root = os.path.join(cls.folder.name, "archive")
        looked_at = datetime.datetime.strptime(cls.expected["looked_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
        cls.now = int(looked_at.timestamp() * 1000)
        cls.trusted = [verify.parse_public_key(cls.expected["keys"]["audit-1"])]
        cls.witnesses = [verify.Witness(cls.expected["witness"])]

    def same(self, report, name):
        expected = self.expected["verified"][name]
        self.assertEqual(report.findings, [])
        self.assertEqual({k: report.checked.get(k) for k in expected["checked"]}, expected["checked"])
        self.assertEqual(json.loads(json.dumps(report.heads)), expected["heads"])

    def test_an_archive(self):
        authorities = verify.read_authorities(os.path.join(self.FOLDER, "keys", "tsa-ca.pem"))
        asked = {"now": self.now, "witnesses": self.witnesses, "authorities": authorities}
        self.same(verify.Archive(self.root, self.trusted, [], None, False, **asked).check(), "archive, second")
        self.same(verify.Archive(self.root, self.trusted, [], None, False, now=self.now).check(), "archive, without anchors, second")

    @unittest.skipIf(verify.pyarrow is None, "pyarrow is not installed")
    def test_the_rows_of_an_archive(self):
        report = verify.Archive(self.root, self.trusted, now=self.now).check()
        self.assertEqual(report.findings, [])
        rows = sum(volume["rows"] for volume in self.expected["constants"]["volumes"].values())
        self.assertEqual(report.checked["rows"], rows)

    def test_packs(self):
        for name in ("pack", "complete-pack"):
            self.same(verify.Pack(os.path.join(self.FOLDER, name), self.trusted).check(), name + ", second")

    def test_a_proof(self):
        with open(os.path.join(self.FOLDER, "proof.json"), "rb") as file:
            proof = verify.Proof("proof.json", file.read(), self.trusted)
        self.same(proof.check(), "proof, second")
        records = b"".join(record + b"\n" for _, record in proof.proven)
        self.assertEqual(hashlib.sha256(records).hexdigest(), self.expected["proven"]["sha256"])


class Rendering(unittest.TestCase):
    def test_an_event(self):
        row = {
            "level": "Metadata", "audit_id": "a", "stage": "ResponseComplete", "request_uri": "/x?a&b<>", "verb": "get", "user_name": "u\u2028\x01\x7f\"\\\n\b\f",
            "user_groups": [], "user_extra": '{"k": [1]}', "source_ips": ["::1", "é"], "resource": "pods", "subresource": "log", "response_code": 200,
            "request_object": "[1, 2]", "request_received_timestamp": None, "stage_timestamp": 1_772_445_600_000_001, "annotations": "{}",
        }  # fmt: skip
        expected = (
            '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/x?a\\u0026b\\u003c\\u003e",'
            '"verb":"get","user":{"username":"u\\u2028\\u0001\x7f\\"\\\\\\n\\b\\f","groups":[],"extra":{"k": [1]}},"sourceIPs":["::1","é"],'
            '"objectRef":{"resource":"pods","subresource":"log"},"responseStatus":{"metadata":{},"code":200},"requestObject":[1, 2],'
            '"requestReceivedTimestamp":null,"stageTimestamp":"2026-03-02T10:00:00.000001Z","annotations":{}}'
        )
        self.assertEqual(verify.render_event(row).decode(), expected)
        self.assertEqual(verify.render_event({"shape": ""}), b'{"user":{},"requestReceivedTimestamp":null,"stageTimestamp":null}')
        self.assertEqual(verify.record_of("events", {"raw": b"", "level": "x"}), b"")
        self.assertEqual(verify.record_of("alerts", {"ocsf": None}), b"")
        self.assertEqual(verify.record_of("activity", {"body": '{"kind":"case"}'}), b'{"kind":"case"}')
        self.assertEqual(verify.record_of("activity", {"body": None}), b"")


class Marks(unittest.TestCase):
    """format.md, Redaction: records and their marks. The other verifier reads the same cases."""

    def test_records_and_their_marks(self):
        with open(os.path.join(os.path.dirname(RECORDS), "marked.json"), encoding="utf-8") as f:
            cases = json.load(f)
        self.assertGreater(len(cases), 20)
        for case in cases:
            self.assertEqual(verify.mark_differs(case, case["record"].encode("utf-8", "surrogatepass")), case["finding"], case["what"])

    def test_a_record_cut_or_changed_anywhere(self):
        token = "rt1:0123abcd:" + "5" * 32
        record = ('{"a":{"b":["%s",{"c":1}]},"d":"x\\u00e9y"}' % token).encode()
        mark = {"dropped": ["/a/x"], "tokenised": ["/a/b/0"]}
        self.assertIsNone(verify.mark_differs(mark, record))
        for end in range(len(record)):
            self.assertIsNotNone(verify.mark_differs(mark, record[:end]), end)
        at = record.index(token.encode())
        for i in range(at, at + len(token)):
            self.assertIsNotNone(verify.mark_differs(mark, record[:i] + b"x" + record[i + 1 :]), i)
        self.assertIsNotNone(verify.mark_differs(mark, record[:-4] + b"\xff" + record[-3:]))
        for deep in (129, 100_000):
            self.assertIsNotNone(verify.mark_differs({"dropped": ["/x"], "tokenised": []}, b'{"a":%s%s}' % (b"[" * deep, b"]" * deep)))


class Forms(unittest.TestCase):
    """format.md, Forms, Redaction, Faults."""

    VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "forms.json")

    @classmethod
    def setUpClass(cls):
        with open(cls.VECTORS, encoding="utf-8") as f:
            cls.vectors = json.load(f)

    @staticmethod
    def row(case):
        return dict(case["columns"], **{name: case.get(name) for name in ("form", "form_values", "raw", "shape")})

    def test_records_of_the_vectors(self):
        for case in self.vectors["records"]:
            with self.subTest(case["name"]):
                self.assertEqual(verify.record_of("events", self.row(case)), base64.b64decode(case["record"]))

    def test_what_the_vectors_refuse(self):
        for case in self.vectors["refused"]:
            with self.subTest(case["name"]):
                with self.assertRaises(verify.BadForm) as refused:
                    verify.record_of("events", self.row(case))
                self.assertEqual(str(refused.exception), case["fault"])

    def test_marks_and_faults_of_the_vectors(self):
        for case in self.vectors["redactions"]:
            self.assertEqual(verify.is_redaction(case["redaction"]), case["good"], case)
        for case in self.vectors["faults"]:
            self.assertEqual(verify.are_faults(case["faults"]), case["good"], case)

    def test_bounds(self):
        form = '{"auditID":${audit_id},"a":"%s"}'
        verify.FormReader(form % ("x" * (verify.FORM_BYTES_MAX - 30))).parse()
        with self.assertRaises(verify.BadForm):
            verify.FormReader(form % ("x" * (verify.FORM_BYTES_MAX - 29))).parse()
        row = {"audit_id": "x", "form": '{"auditID":${audit_id},"a":["${}","${}"]}'}
        most = verify.FORM_ITEMS_BYTES_MAX
        self.assertEqual(len(verify.render_form(dict(row, form_values=["x" * (most - 1), "x"]))), most + 27)
        with self.assertRaises(verify.BadForm):
            verify.render_form(dict(row, form_values=["x" * most, "x"]))
        self.assertFalse(verify.item_fits("[" * 100_000, "value"))

    def test_what_python_writes(self):
        """Makes records and templates with json.dumps, with the same options for both; a template
        has holes in place of the values. The row and the template must give the record."""
        r = random.Random(12)
        alphabet = "ab<>&/\"\\\n\t\b\x00\x1f\x7f$é\u2028\ud7ff\U0001f600"

        def text():
            return "".join(r.choice(alphabet) for _ in range(r.randrange(6)))

        for _ in range(FUZZ_ROUNDS // 4):
            ascii_only, indent, nested = r.random() < 0.5, r.choice([None, None, 2, 3]), r.random() < 0.3
            style = "ascii" if ascii_only else "json"
            row, event, holes = {}, {}, {}
            for column, (container, key, kind) in r.sample(sorted(verify.MAPPED.items()), len(verify.MAPPED)):
                if r.random() < 0.5 and column != "audit_id":
                    continue
                depth = 2 if container else 1
                micros = r.randrange(-(10**16), 10**17) // 10 ** r.choice([0, 3, 6]) * 10 ** r.choice([0, 3, 6])
                micros = min(max(micros, verify.TIME_MIN), verify.TIME_MAX)
                layout = "spaced" if indent is None else "lines-%d-%d" % (indent * (depth + 1), indent * depth)
                at = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=micros)
                body = {text(): [text()], "k": r.randrange(9)}
                shown = json.dumps(body, ensure_ascii=ascii_only, indent=indent)
                value, cell, hole = {
                    "text": lambda: (lambda t: (t, t, "${%s:%s}" % (column, style)))(text()),
                    "list": lambda: (lambda t: (t, t, "${%s:%s,%s}" % (column, style, layout)))([text() for _ in range(r.randrange(3))]),
                    "integer": lambda: (lambda n: (n, n, "${%s}" % column))(r.randrange(-1000, 1000)),
                    "json": lambda: (body, shown.replace("\n", "\n" + " " * ((indent or 0) * depth)), "${%s}" % column),
                    "time": lambda: (at.isoformat(), micros, "${%s:sixes+00:00}" % column),
                }[kind]()
                row[column] = cell
                for target, what in ((event, value), (holes, hole)):
                    (target.setdefault(container, {}) if container else target)[key] = what
            event["zone"], holes["zone"] = "$", "$$"
            record = json.dumps(event, ensure_ascii=ascii_only, indent=indent)
            form = json.dumps(holes, indent=indent)
            form = re.sub(r'"(\$\{[^}]*\})"', r"\1", form)
            own = record
            if nested:
                record = json.dumps({"log": record + "\n", "time": "now"}, ensure_ascii=ascii_only)
                form = '{"log": ${<%s}%s\n${>}, "time": "${}"}' % (style, form)
            row.update(form=form, form_values=["now"] if nested else None)
            self.assertEqual(verify.record_of("events", row).decode(), record)
            self.assertEqual(verify.render_form(row, event_only=True).decode(), own)

    def test_random_forms(self):
        """For any content of the columns, no exception other than BadForm is raised."""
        r = random.Random(13)
        templates = [case["form"] for case in self.vectors["records"] + self.vectors["refused"] if len(case["form"]) < 2000]
        pieces = ["${", "}", "${}", "${>}", "${<json}", '"', "{", "[", ",", ":", "\\", "$", "$$", "null", "${verb}", '"verb":', "\ud7ff"]
        for _ in range(FUZZ_ROUNDS):
            form = r.choice(templates)
            for _ in range(r.randrange(1, 4)):
                at = r.randrange(len(form) + 1)
                form = form[:at] + r.choice(pieces) + form[at + r.randrange(4) :]
            row = {"audit_id": "x", "verb": "get", "form": form, "form_values": r.choice([None, [], ["1"], ["1", "2"]])}
            try:
                event = verify.render_form(row, event_only=True)
            except verify.BadForm:
                continue
            self.assertEqual(json.loads(event)["verb"], "get")


@unittest.skipIf(verify.pyarrow is None, "pyarrow is not installed")
def whole(table, columns):
    """Returns an Arrow table with these columns, in the order of a table of the archive, and nulls in
    its other columns. Columns that it does not have come last."""
    import pyarrow as pa

    kinds = {"list": pa.list_(pa.string()), "time": pa.timestamp("us", tz="UTC"), "binary": pa.binary(), "int32": pa.int32(), "int64": pa.int64(), "string": pa.string()}
    rows = len(next(iter(columns.values())))
    known = {name: columns[name] if name in columns else pa.nulls(rows, kinds[kind]) for name, kind in verify.COLUMNS[table]}
    return pa.table({**known, **{name: column for name, column in columns.items() if name not in known}})


class Rows(InFolder):
    """Point 8, on real Parquet files."""

    MICROS = START * 1000
    RAW = b'{"auditID":"a"} '

    def file(self, **changes):
        import pyarrow as pa
        import pyarrow.parquet

        columns = {
            "level": pa.array(["Metadata", None, "Request"]),
            "audit_id": pa.array([None, "a", None]),
            "raw": pa.array([None, self.RAW, None], pa.binary()),
            "stage_timestamp": pa.array([self.MICROS, None, self.MICROS + 5], pa.timestamp("us", tz="UTC")),
            "source": pa.array(["file/a", "file/a", "file/b"]),
            "source_offset": pa.array([10, 0, 3], pa.int64()),
        }
        columns.update(changes)
        out = io.BytesIO()
        pa.parquet.write_table(whole("events", columns), out, row_group_size=2)
        return out.getvalue()

    def check(self, data, day="2026-03-02", marks=(None, None, None), **changes):
        self.folder.cleanup()
        os.makedirs(self.root)
        w = self.writer()
        records = [
            b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"%s","user":{},"requestReceivedTimestamp":null,"stageTimestamp":"2026-03-02T10:00:00.00000%dZ"}' % v
            for v in ((b"Metadata", 0), (b"Request", 5))
        ]
        low, high = "2026-03-02T10:00:00.000000Z", "2026-03-02T10:00:00.000005Z"
        stats = {
            "numRecords": 3,
            "minValues": {"stage_timestamp": low, "source": "file/a", "source_offset": 0},
            "maxValues": {"stage_timestamp": high, "source": "file/b", "source_offset": 10},
        }
        leaves = [record if mark is None else marked(mark, record) for mark, record in zip(marks, (records[0], self.RAW, records[1]))]
        changes.setdefault("tag_record_root", mth(leaves).hex())
        changes.setdefault("stats", json.dumps(stats))
        add = w.add("events/2026", {"file/a": [0, 10, 2], "file/b": [3, 3, 1]}, data=data, day=day, **changes)
        counts = {"received": 3, "events": 3, "rejects": 0, "duplicates": 0}
        w.commit("events/2026", [add], {"file/a": (20, 2), "file/b": (4, 1)}, counts)
        report = verify.Archive(self.root, [public(SEEDS[0])], now=w.clock).check()
        return [f["kind"] for f in report.findings]

    def test_records_of_activity(self):
        import pyarrow as pa
        import pyarrow.parquet

        time = "2026-03-02T10:00:00.000000Z"
        bodies = ['{"kind":"case","time":"%s","principal":"eve","n":%d}' % (time, n) for n in range(3)]

        def kinds(root, body="body", **changes):
            self.folder.cleanup()
            os.makedirs(self.root)
            w, out = self.standard(), io.BytesIO()
            columns = {
                "time": pa.array([self.MICROS] * 3, pa.timestamp("us", tz="UTC")),
                body: pa.array(bodies),
                "kind": pa.array(["case"] * 3),
                "principal": pa.array(["eve"] * 3),
                "subject": pa.array([None] * 3, pa.string()),
                "source": pa.array(["activity/a"] * 3),
                "source_offset": pa.array(range(3), pa.int64()),
            }
            columns.update(changes)
            pa.parquet.write_table(whole("activity", columns), out)
            bounds = [{"time": time, "source": "activity/a", "source_offset": n} for n in (0, 2)]
            stats = json.dumps({"numRecords": 3, "minValues": bounds[0], "maxValues": bounds[1]})
            add = w.add("activity/2026", {"activity/a": [0, 2, 3]}, data=out.getvalue(), tag_record_root=root.hex(), stats=stats)
            w.commit("activity/2026", [add], {"activity/a": (3, 3)})
            report = verify.Archive(self.root, [public(SEEDS[0])], now=w.clock).check()
            return [f["kind"] for f in report.findings if f["where"].startswith("activity/")]

        root = mth([body.encode() for body in bodies])
        self.assertEqual(kinds(root), [])
        self.assertEqual(kinds(mth([b""] * 3)), ["record_changed"])
        self.assertEqual(kinds(root, body="boody"), ["columns_differ"] * 3 + ["record_changed"])
        self.assertEqual(kinds(root, kind=pa.array(["case", "clock", "case"])), ["columns_differ"])
        self.assertEqual(kinds(root, subject=pa.array([None, None, "x"])), ["columns_differ"])
        self.assertEqual(kinds(root, principal=pa.array(["eve", None, "bob"])), ["columns_differ"] * 2)

    def test_what_is_a_record_of_activity(self):
        good = {"kind": "case", "time": "2026-03-02T10:00:00.000000Z", "principal": "eve"}
        row = {"kind": "case", "time": self.MICROS, "principal": "eve", "subject": None}

        def differs(body, **changes):
            return verify.activity_differs({**row, **changes, "body": body})

        self.assertIsNone(differs(json.dumps(good)))
        self.assertIsNone(differs(json.dumps({**good, "subject": "case 7", "more": [1, {"a": None}]}), subject="case 7"))
        self.assertEqual(differs(json.dumps(good), time=self.MICROS + 1), "its columns differ from its body")
        self.assertEqual(differs(json.dumps({**good, "subject": "x"})), "its columns differ from its body")
        deepest, deep = (json.dumps(good)[:-1] + ',"d":%s%s}' % ("[" * n, "]" * n) for n in (126, 127))
        self.assertIsNone(differs(deepest))
        for body in (
            [None, "", "[]", "{", "null", json.dumps(good)[:-1] + ',"kind":"case"}', deep, json.dumps({**good, "x": "y" * (1 << 20)})]
            + [json.dumps({**good, **changes}) for changes in ({"kind": "gossip"}, {"kind": []}, {"principal": ""}, {"principal": " eve"}, {"principal": "e\x00ve"}, {"subject": None})]
            + [json.dumps({**good, "time": t}) for t in ("2026-03-02T10:00:00Z", "2026-02-30T10:00:00.000000Z", "2026-03-02T10:00:00.000000+00:00", 5)]
            + [json.dumps({**good, "principal": "x" * 1001}), json.dumps({k: v for k, v in good.items() if k != "time"})]
        ):
            self.assertEqual(differs(body), "its body is not an activity record", body and body[:80])

    def test_a_checkpoint_of_delta_that_hides_files(self):
        import pyarrow as pa
        import pyarrow.parquet

        self.assertEqual(self.check(self.file()), [])
        actions = [json.loads(l) for i in (0, 1) for l in get(self.root, LOG % i).split(b"\n")]
        add = next(a["add"] for a in actions if "add" in a)
        txns = [a["txn"] for a in actions if "txn" in a]
        rel, pairs = "events/2026/_delta_log/%020d.checkpoint.parquet" % 1, pa.map_(pa.string(), pa.string())
        types = {
            "add": pa.struct(
                [("path", pa.string()), ("partitionValues", pairs), ("size", pa.int64()), ("stats", pa.string()), ("tags", pairs)]
                + [("deletionVector", pa.struct([("storageType", pa.string())]))]
            ),
            "remove": pa.struct([("path", pa.string())]),
            "txn": pa.struct([("appId", pa.string()), ("version", pa.int64())]),
            "protocol": pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())]),
            "metaData": pa.struct([("id", pa.string()), ("schemaString", pa.string())]),
            "sidecar": pa.struct([("path", pa.string())]),
        }
        file = dict(add, partitionValues=list(add["partitionValues"].items()), tags=list(add["tags"].items()))
        good = [{"add": file}, {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": {"id": "x"}}] + [{"txn": t} for t in txns]
        cases = [
            (good, False),
            (good[1:], True),
            (good + good[:1], True),
            ([{"add": dict(file, path="x")}] + good[1:], True),
            ([{"add": dict(file, size=1)}] + good[1:], True),
            ([{"add": dict(file, stats="{}")}] + good[1:], True),
            ([{"add": dict(file, partitionValues=[("date", "2026-03-03")])}] + good[1:], True),
            ([{"add": dict(file, deletionVector={"storageType": "u"})}] + good[1:], True),
            (good + [{"remove": {"path": add["path"]}}], True),
            (good + [{"sidecar": {"path": "y"}}], True),
            (good[:1] + good[2:], True),
            (good[:2] + [{"metaData": {"id": "x", "schemaString": "{}"}}] + good[3:], True),
            (good[:-1], True),
            (good[:-1] + [{"txn": dict(txns[-1], version=99)}], True),
        ]
        for rows, wrong in cases:
            os.makedirs(os.path.dirname(os.path.join(self.root, rel)), exist_ok=True)
            columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()}
            pa.parquet.write_table(pa.table(columns), os.path.join(self.root, rel))
            report = verify.Archive(self.root, [public(SEEDS[0])], now=START + 5000).check()
            self.assertEqual({f["kind"] for f in report.findings}, {"delta_checkpoint"} if wrong else set(), rows)
        put(self.root, rel, b"PAR1")
        self.assertIn("delta_checkpoint", [f["kind"] for f in verify.Archive(self.root, [public(SEEDS[0])], now=START + 5000).check().findings])
        put(self.root, rel.replace("01.checkpoint", "01.checkpoint.0000000001.0000000001"), b"PAR1")
        os.remove(os.path.join(self.root, rel))
        self.assertIn("delta_checkpoint", [f["kind"] for f in verify.Archive(self.root, [public(SEEDS[0])], now=START + 5000).check().findings])

    def test_rows(self):
        import pyarrow as pa

        self.assertEqual(self.check(self.file()), [])
        self.assertEqual(self.check(self.file(level=pa.array(["Metadata", None, "None"]))), ["record_changed"])
        other = pa.array([b'{"auditID":"b","level":"Metadata","stageTimestamp":"2026-03-02T10:00:00Z"}', self.RAW, None], pa.binary())
        self.assertEqual(self.check(self.file(raw=other)), ["columns_differ", "record_changed"])
        self.assertEqual(self.check(self.file(source_offset=pa.array([9, 0, 3], pa.int64()))), ["offsets", "statistics"])
        self.assertEqual(self.check(self.file(source=pa.array(["file/a", None, "file/b"]))), ["offsets"])
        self.assertEqual(self.check(b"PAR1 not PAR1"), ["rows"])
        self.assertEqual(self.check(self.file()[:-30] + bytes(30)), ["rows"])
        self.assertEqual(self.check(self.file(), day="2026-03-03"), ["statistics"])
        self.assertEqual(self.check(self.file(), day="2026-03-01"), [])  # one day after its folder's day, on which it may have arrived
        self.assertEqual(self.check(self.file(), day="2026-02-20"), ["statistics"])  # not committed within a week
        self.assertEqual(self.check(self.file(), tag_rows="4", stats='{"numRecords":4}')[0], "tags")
        four = {"tag_rows": "4", "stats": '{"numRecords":4}', "tag_offsets": '{"file/a":[0,10,3],"file/b":[3,3,1]}'}
        self.assertEqual(self.check(self.file(), **four)[:2], ["rows", "offsets"])
        self.assertEqual(self.check(self.file(source_offset=pa.array(["a", "b", "c"]))), ["rows"])
        far = pa.array([self.MICROS, None, 1 << 62], pa.timestamp("us", tz="UTC"))
        self.assertEqual(self.check(self.file(stage_timestamp=far))[:2], ["columns_differ", "record_changed"])

    def table(self, table, rows):
        """Returns a Parquet file of these rows."""
        import pyarrow as pa
        import pyarrow.parquet

        kinds = {"raw": pa.binary(), "response_code": pa.int32(), "source_offset": pa.int64(), "event_count": pa.int64()}
        kinds.update((c, pa.timestamp("us", tz="UTC")) for c in ("request_received_timestamp", "stage_timestamp", "time", "window_start", "window_end"))
        lists = "user_groups impersonated_user_groups source_ips audit_ids tactics techniques namespaces actors clusters faults"
        kinds.update((c, pa.list_(pa.string())) for c in lists.split())
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.string())) for name in names}
        out = io.BytesIO()
        pa.parquet.write_table(whole(table, columns), out)
        return out.getvalue()

    def seal(self, w, table, rows):
        """Writes a file of these rows, and returns an `add` that is correct for the file. Somebody
        with the key can do the same with forged rows."""
        for i, row in enumerate(rows):
            row.update(source="file/a", source_offset=i)
        time = verify.TIME_COLUMN[table]
        ends = {"minValues": min, "maxValues": max}
        stats = {"numRecords": len(rows)}
        for name, end in ends.items():
            at = end((row[time] for row in rows if row.get(time) is not None), default=None)
            stats[name] = {"source": "file/a", "source_offset": end(row["source_offset"] for row in rows)}
            stats[name].update({} if at is None else {time: verify.utc_time(at)})
        root = mth([verify.record_of(table, row) for row in rows]).hex()
        volume, day = "%s/2026" % table, "2026-03-02"
        return w.add(volume, {"file/a": [0, len(rows) - 1, len(rows)]}, day, data=self.table(table, rows), stats=json.dumps(stats), tag_record_root=root)

    def test_rows_whose_columns_and_record_disagree(self):
        for version, every in ((1, 16), (2, 4)):
            with self.subTest(version):
                self.rows_disagree(version, every)

    def rows_disagree(self, version, every):
        self.folder.cleanup()
        os.makedirs(self.root)
        w, expected, actions, day = self.writer(), {}, [], range(self.MICROS, self.MICROS + 3_600_000_000)
        w.events_format = version
        good = [(record, says) for _, record, rendered, says, _ in records(version) if says is not None and not rendered][::every]
        good = [(record, says) for record, says in good if says.get("stage_timestamp", self.MICROS) in day]
        changes = [(record, says, column, ["/userAgent: too_long"] if column == "faults" else changed(says.get(column))) for record, says in good for column in says]
        changes += [(record, says, column, None) for record, says in good for column in list(says)[1:]]
        for at in range(0, len(changes), 7):  # an unchanged row comes before each changed one
            rows = []
            for record, says, column, value in changes[at : at + 7]:
                rows += [dict(says, raw=record), dict(dict(says, raw=record), **{column: value})]
            actions.append(self.seal(w, "events", rows))
            where = "events/2026/%s" % actions[-1]["add"]["path"]
            expected.update(("%s, row %d" % (where, 2 * i + 1), c[2]) for i, c in enumerate(changes[at : at + 7]))
        said = [dict(Records.FINDING, unmapped=dict(Records.FINDING["unmapped"], source_offset=i)) for i in range(6)]
        alerts = [dict(Records.ALERT, ocsf=json.dumps(finding)) for finding in said]
        for row, column in ((1, "title"), (3, "severity"), (4, "audit_ids")):
            alerts[row][column] = changed(alerts[row][column])
        add = self.seal(w, "alerts", alerts)
        expected.update(("alerts/2026/%s, row %d" % (add["add"]["path"], row), name) for row, name in ((1, "title"), (3, "severity"), (4, "audit_ids")))
        w.commit("alerts/2026", [add], {"file/a": (1000, 1000)})
        w.commit("events/2026", actions, {}, {"received": 0, "events": 0, "rejects": 0, "duplicates": 0})
        report = verify.Archive(self.root, [public(SEEDS[0])], now=w.clock).check()
        found = {f["where"]: f["detail"] for f in report.findings if f["kind"] == "columns_differ"}
        # Without the path, an event that is found by a path cannot be read.
        lost = "its record is not one of the table"
        found = {where: "not what its record says: shape" if (detail, expected.get(where)) == (lost, "shape") else detail for where, detail in found.items()}
        self.assertEqual(found, {where: "not what its record says: %s" % column for where, column in expected.items()})
        self.assertEqual({f["kind"] for f in report.findings} - {"columns_differ", "counts", "overlap"}, set())  # from the offsets
        self.assertGreater(len(expected), 100)

    def test_many_rows_and_newer_formats(self):
        self.folder.cleanup()
        os.makedirs(self.root)
        w, rows = self.writer(), [{"audit_id": "a", "verb": "get" if i < 5 else "list", "raw": b'{"auditID":"a","verb":"get"}'} for i in range(30)]
        add = self.seal(w, "events", [dict(row, stage_timestamp=None) for row in rows])
        w.commit("events/2026", [add], {"file/a": (30, 30)}, {"received": 30, "events": 30, "rejects": 0, "duplicates": 0})
        report = verify.Archive(self.root, [public(SEEDS[0])], now=w.clock).check()
        self.assertEqual([f["where"].split(", ")[1] for f in report.findings], ["row %d" % i for i in range(5, 15)])
        self.assertEqual({f["detail"] for f in report.findings}, {"not what its record says: verb; such rows of the file: 25"})
        rel = LOG % 1
        for said, judged in ((2, True), (3, False), (1 << 62, False), (1 << 64, True), ("2", True), (2.5, True), (0, True), (None, True)):
            lines = [json.loads(line) for line in get(self.root, rel).split(b"\n")]
            lines[0]["commitInfo"]["strongroom"]["eventsFormat"] = said
            put(self.root, rel, "\n".join(map(json.dumps, lines)).encode())
            report = verify.Archive(self.root, [public(SEEDS[0])], now=w.clock).check()
            self.assertEqual("columns_differ" in [f["kind"] for f in report.findings], judged, said)
            told = "whether columns match their records in 1 files of events, whose format is newer than 2"
            self.assertEqual(told in report.not_checked, not judged)

    def test_forms_and_marks(self):
        import pyarrow as pa

        prefix = '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":${level},"user":{},"requestReceivedTimestamp":null,"stageTimestamp":'
        good = prefix + "${stage_timestamp}}"
        values = pa.array([None, None, None], pa.list_(pa.string()))

        def kinds(form=good, **columns):
            return self.check(self.file(form=pa.array([form, None, None]), **dict({"form_values": values}, **columns)))

        self.assertEqual(kinds(), [])
        self.assertEqual(self.check(self.file(form=pa.array([good, None, None]))), [])  # without the column form_values
        for form in (good.replace("${level}", '"Metadata"'), prefix + "null}", good[:-1], good + "${}", good.replace("${level}", "${level:json}x")):
            self.assertEqual(kinds(form), ["columns_differ", "record_changed"], form)
        self.assertEqual(kinds(good.replace("${level}", "${level:json}")), [])
        # If a form has text around the event, only the event is compared.
        nested = {"form": pa.array(['{"log":${<go}%s\\n${>}}' % good, None, None]), "form_values": values}
        self.assertEqual(self.check(self.file(**nested)), ["record_changed"])
        self.assertEqual(self.check(self.file(authz_decision=pa.array(["allow", None, None]), **nested)), ["columns_differ", "record_changed"])
        self.assertEqual(kinds(raw=pa.array([b"x", self.RAW, None], pa.binary())), ["columns_differ", "record_changed"])
        self.assertEqual(kinds(form_values=pa.array([["1"], None, None])), ["columns_differ", "record_changed"])
        self.assertEqual(kinds(form_values=pa.array([None, ["1"], None])), ["columns_differ"])
        self.assertEqual(kinds(faults=pa.array([None, ["/stage: unknown_stage"], None])), [])
        self.assertEqual(kinds(faults=pa.array([["/stage: odd"], [], None])), ["columns_differ", "columns_differ"])

    def test_redacted_rows(self):
        import pyarrow as pa

        def mark(*dropped, policy="0123456789abcdef", tokenised=()):
            return json.dumps({"policy": policy, "dropped": dropped, "tokenised": tokenised}, separators=(",", ":"))

        def kinds(sealed, stored):
            data = self.file(redaction=pa.array(stored, pa.string()))
            return self.check(data, marks=sealed)

        good = (mark("/requestObject/data"), None, mark("/a", "/b"))
        self.assertEqual(kinds(good, good), [])
        report = verify.Archive(self.root, [public(SEEDS[0])], now=START + 5000).check()
        self.assertEqual((report.findings, report.checked["redacted"]), ([], 2))
        # A mark that is changed, added or left out after the records were hashed.
        for forged in (
            (mark("/requestObject/data", policy="0123456789abcdee"), None, good[2]),
            (mark("/requestObject"), None, good[2]),
            (None, None, good[2]),
            (None, None, None),
            (good[2], None, good[0]),
        ):
            self.assertEqual(kinds(good, forged), ["record_changed"], forged)
        self.assertEqual(kinds((None, None, None), good), ["record_changed"])
        # Marks that contradict their records, although the owner of the key has sealed them.
        for wrong in (mark("/level"), mark("/requestObject/data", tokenised=["/level"]), mark(tokenised=["/user/username"]), "{}", mark("/a") + " ", ""):
            self.assertEqual(kinds((wrong, None, None), (wrong, None, None)), ["columns_differ"], wrong)
        # The record of the second row has white space around the event, so it is not the event
        # alone.
        self.assertEqual(kinds((None, good[0], None), (None, good[0], None)), ["columns_differ"])


RECORDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/data/records")


# Cases in which the rules of `eventsFormat` 1 may have another result.
LATER = re.compile(
    rb'audit_level|method\\*"|status\\*": *\{|user\\*": *\{\\*"name|methodName\\*": *\\*"[a-z0-9.]+\.v[0-9]|response\\*": *\{(\\*"@type\\*":null,)?\\*"status'
)


def records(version):
    """Yields (what, record, rendered, says, shape) of each case in tests/data/records, by one version
    of the rules. The program's own decoder is tested with the same cases."""
    for name in sorted(os.listdir(RECORDS)):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(RECORDS, name), encoding="utf-8") as file:
            cases = json.load(file)
        for case in cases:
            data = base64.b64decode(case["base64"]) if "base64" in case else case["record"].encode()
            of_case, says = case.get("format", 2), case["says"]
            if version == 1 and "format" not in case and not LATER.search(data):
                of_case, says = 1, says and {k: v for k, v in says.items() if k != "faults"}
            if version == of_case:
                yield case["what"], data, case.get("rendered", False), says, case.get("shape") or (says or {}).get("shape")


def changed(value):
    """Returns another value of the same type, or "x" for None."""
    if value is None:
        return "x"
    return value ^ 1 if isinstance(value, int) else value[::-1] + (["x"] if isinstance(value, list) else "x")


EVENTS = {version: verify.Events(version) for version in (1, 2)}


class Records(unittest.TestCase):
    """Point 16: format.md, What a record says."""

    FINDING = {
        "count": 2,
        "end_time": 1_772_445_600_002,
        "evidences": [{"actor": {"user": {"name": "alice"}}, "api": {"operation": "list"}, "src_endpoint": {"ip": "10.0.0.7"}}],
        "finding_info": {
            "analytic": {"name": "secret-sweep", "uid": "rule"},
            "attacks": [
                {"tactic": {"name": "Credential Access", "uid": "TA0006"}},
                {"tactic": {"name": "stealth"}},
                {"technique": {"uid": "T1552"}, "sub_technique": {"uid": "T1552.007"}},
                {"technique": {"uid": "T1078"}},
            ],
            "title": "Secrets swept",
            "uid": "id",
        },
        "message": "alice read",
        "remediation": {"desc": "Ask."},
        "resources": [{"name": "s/status", "namespace": "ns", "type": "secrets"}],
        "severity": "High",
        "start_time": -1,
        "time": 1_772_445_600_001,
        "unmapped": {"audit_ids": ["a", "b"], "cluster": "c", "group_key": "k", "source": "file/a", "source_offset": 7,
                     "namespaces": ["ns"], "actors": ["alice"], "clusters": ["c"], "event_ranges": [{"first": 7, "last": 9, "source": "file/a"}]},
    }  # fmt: skip
    ALERT = {
        "alert_id": "id", "rule_id": "rule", "rule_name": "secret-sweep", "title": "Secrets swept", "severity": "high", "time": 1_772_445_600_001_999,
        "window_start": -1, "window_end": 1_772_445_600_002_000, "cluster": "c", "actor": "alice", "source_ip": "10.0.0.7", "verb": "list", "resource": "secrets",
        "subresource": "status", "namespace": "ns", "name": "s", "group_key": "k", "event_count": 2, "audit_ids": ["a", "b"],
        "tactics": ["credential-access", "stealth"], "techniques": ["T1552.007", "T1078"], "message": "alice read", "next_steps": "Ask.",
        "source": "file/a", "source_offset": 7, "namespaces": ["ns"], "actors": ["alice"], "clusters": ["c"], "event_ranges": '[["file/a",7,9]]',
    }  # fmt: skip

    def test_what_records_say(self):
        for version, events in EVENTS.items():
            count = 0
            for what, record, rendered, says, shape in records(version):
                count += 1
                try:
                    said = {k: v for k, v in events.columns(rendered, record, shape).items() if v is not None and k in events.compared}
                except (verify.NoRecord, UnicodeDecodeError):
                    said = None
                self.assertEqual(said, says, (version, what))
                if not rendered:
                    self.assertEqual(events(dict(says or {"shape": shape}, raw=record), record), None if says is None else [], (version, what))
            self.assertGreater(count, 900)

    def test_each_column_is_compared(self):
        for version, events in EVENTS.items():
            seen = set()
            for what, record, rendered, says, shape in records(version):
                if rendered or says is None:
                    continue
                absent = next(c for c in events.compared if c not in says)
                self.assertEqual(events(dict(says, raw=record, **{absent: "x"}), record), [absent], what)
                for column, value in says.items():
                    if column in seen and len(record) > 1000:
                        continue
                    for other in (changed(value), None):
                        row = dict(says, raw=record)
                        row[column] = other
                        # Without the path, an event that is found by a path cannot be read.
                        expected = None if column == "shape" and verify.path_of(shape) else [column]
                        self.assertEqual(events(row, record), expected, what)
                    seen.add(column)
            self.assertEqual(seen, set(events.compared))
        self.assertEqual(set(EVENTS[2].compared) - set(EVENTS[1].compared), {"faults"})

    def test_paths(self):
        longest = "a" * verify.UNWRAP_BYTES_MAX
        for text, names in [
            ("a", ["a"]), ("a.b.c", ["a", "b", "c"]), (r"a\.b.c", ["a.b", "c"]), (r"a\\.b", ["a\\", "b"]), (" .ä", [" ", "ä"]), ("a.annotations", ["a", "annotations"]),
            ("1.2.3.4.5.6.7.8", list("12345678")), (longest, [longest]),
        ]:  # fmt: skip
            self.assertEqual(verify.path_of("unwrap:" + text), names)
        for text in ("", ".", ".a", "a.", "a..b", "a\\", r"a\b", "a\nb", "a\x85", "1.2.3.4.5.6.7.8.9", longest + "a", "é" * 129, "requestObject", "responseObject.a", "annotations.x"):
            self.assertIsNone(verify.path_of("unwrap:" + text), text)
        for shape in (None, "", "a", "Unwrap:a", verify.SHAPE_GOOGLE):
            self.assertIsNone(verify.path_of(shape))

    def test_rows_that_render(self):
        """The text of some columns is copied into the record. For any such text, the columns are
        compared with what the whole record says."""
        good = {
            "level": "Metadata", "audit_id": "a", "user_name": "\u2028\x01\"<é", "user_groups": ["", "g"], "user_extra": '{"k":["v"]}', "impersonated_user_name": "",
            "source_ips": [], "name": "n", "response_code": 0, "response_details": "{}", "request_object": "[1, 2]", "response_object": '"x"',
            "stage_timestamp": 0, "annotations": '{"authorization.k8s.io/decision":"allow"}', "authz_decision": "allow",
        }  # fmt: skip
        deep = "[" * 126 + "]" * 126
        cases = [
            ({}, []),
            ({"shape": ""}, []),
            ({"shape": '"x": {"level": 1} ,'}, []),
            ({"request_object": deep}, []),
            ({"request_object": "[%s]" % deep}, []),
            ({"user_extra": '{"\\ud800":1}'}, []),
            ({"audit_id": None}, []),
            ({"stage_timestamp": verify.RENDERED_FROM_US}, []),
            ({"stage_timestamp": verify.RENDERED_TO_US - 1}, []),
            ({"authz_decision": "forbid"}, ["authz_decision"]),
            ({"authz_decision": None}, ["authz_decision"]),
            ({"authz_reason": "r"}, ["authz_reason"]),
            ({"annotations": None}, ["authz_decision"]),
            ({"annotations": '{"a":1},"verb":"get"', "authz_decision": None}, ["verb", "annotations"]),
            ({"annotations": '{"\\ud800":1}', "authz_decision": None}, ["faults"]),
            ({"shape": verify.DEFAULT_SHAPE}, ["shape"]),
            ({"shape": '"stage":"Panic",'}, ["stage", "shape"]),
            ({"shape": '"\\u0073tage":"Panic",'}, ["stage", "shape"]),
            ({"shape": '"verb":"x","verb":null,'}, ["shape", "faults"]),
            ({"shape": '"kind":"Pod",'}, None),
            ({"shape": "x"}, None),
            ({"shape": "", "audit_id": None}, None),
            ({"shape": '"logName":"x","protoPayload":{},', "audit_id": None}, None),
            ({"level": "metadata"}, ["faults"]),
            ({"user_groups": ["a", None]}, ["user_groups"]),
            ({"user_extra": " {}"}, ["user_extra"]),
            ({"user_extra": "null"}, ["user_extra"]),
            ({"user_extra": "[]"}, ["user_extra", "faults"]),
            ({"user_extra": "{}}"}, None),
            ({"user_extra": '{}},"verb":"x","objectRef":{"name":"m"},"y":{"z":1'}, ["user_extra", "verb", "faults"]),
            ({"request_object": "null"}, ["request_object"]),
            ({"request_object": "NaN"}, None),
            ({"request_object": '1,"responseObject":2'}, ["request_object", "faults"]),
            ({"response_object": None, "request_object": '1,"responseObject":2'}, ["request_object", "response_object"]),
            ({"request_object": "[[%s]]" % deep}, ["request_object", "faults"]),
            ({"stage_timestamp": verify.RENDERED_TO_US}, ["stage_timestamp"]),
            ({"stage_timestamp": verify.RENDERED_FROM_US - 1}, ["stage_timestamp"]),
            ({"stage_timestamp": -(1 << 63)}, ["stage_timestamp"]),
            ({"request_received_timestamp": (1 << 63) - 1}, ["request_received_timestamp"]),
            ({"annotations": '{"\\ud800":1}', "authz_decision": None, "faults": [": not_utf8"]}, []),
            ({"annotations": '{"authorization.k8s.io/decision":1,"authorization.k8s.io/decision":"allow"}'}, ["faults"]),
            ({"annotations": '{"authorization.k8s.io/decision":5}', "authz_decision": None}, ["faults"]),
            ({"shape": '"k8s_audit_level":"None",'}, []),
            ({"shape": '"k8s_audit_level":"None",', "level": None}, ["level"]),
            ({"shape": '"k8s_audit_level":"None",', "level": "odd"}, ["level"]),
            ({"shape": '"method":"GET",', "level": None, "request_uri": "/x"}, None),
            ({"shape": '"method":"GET",', "request_uri": "/x"}, []),
            ({"level": "metadata", "faults": ["/level: unknown_level"]}, []),
            ({"level": "Metadata", "faults": ["/level: unknown_level"]}, ["faults"]),
            ({"stage": "Odd", "faults": ["/stage: unknown_stage"]}, []),
            ({"request_object": "NaN", "verb": "get"}, ["annotations", "authz_decision", "faults", "request_object", "response_object", "stage_timestamp"]),
            ({"shape": "", "audit_id": None, "verb": "get", "request_uri": "/x", "stage": "Panic"}, []),
            ({"response_object": '"{x"'}, []),
        ]
        # Members that format 2 puts together: an object that was written as text, and members of an
        # object that are among those of the event.
        for change, column in (({"response_object": '" {}"'}, "response_object"), ({"shape": '"objectRef.name":"m",', "name": None}, "name")):
            for version, expected in ((1, []), (2, [column])):
                row = dict(good, **change)
                self.assertEqual(verify.Events(version)(row, verify.record_of("events", row)), expected, change)
        for (change, expected), version in itertools.product(cases, (1, 2)):
            if version == 1:
                if LATER.search(change.get("shape", "").encode()):
                    continue
                expected = expected and [column for column in expected if column != "faults"]
            events, row = verify.Events(version), dict(good, **change)
            for _ in range(2):  # what the first round remembers must not change the result of the second
                found = events(row, verify.record_of("events", row))
                self.assertEqual(found and sorted(found), expected and sorted(expected), (version, change))
            if expected == [] and not events.says_itself(row) and row.get("faults") is None:
                self.assertIn(next(iter(change)), ("request_object", "response_object", "user_extra", "audit_id", "shape", "level", "annotations", "stage"), change)
        for version in (1, 2):
            self.assertTrue(verify.Events(version).says_itself(good))

    def test_alerts(self):
        text = json.dumps(self.FINDING)
        differs = lambda row, finding=text: verify.alert_differs(dict(row, ocsf=finding), (finding or "").encode())  # noqa: E731
        self.assertEqual(differs(self.ALERT), [])
        for name, columns, _ in verify.ALERT_COLUMNS:
            for column in columns:
                for other in (changed(self.ALERT[column]) if column not in ("time", "window_start", "window_end") else self.ALERT[column] + 1000, None):
                    self.assertEqual(differs(dict(self.ALERT, **{column: other})), [name], column)
        for finding in (None, "", "x", "[]", '"x"', "[" * 100_000, '{"\\ud800":1}', "{}\0"):
            self.assertIsNone(differs(self.ALERT, finding), finding and finding[:20])
        bare = {"group_key": "", "next_steps": "", "tactics": [], "techniques": []}
        self.assertEqual(differs(bare, "{}"), [])
        self.assertEqual(differs(dict(bare, name="n", subresource="s", namespace="ns"), "{}"), [])  # no resource, no name
        self.assertEqual(differs(dict(bare, verb="unknown"), '{"evidences":[{"api":{"operation":"unknown"}}]}'), [])
        self.assertEqual(differs(bare, '{"evidences":[{"api":{"operation":"unknown"}}]}'), [])
        self.assertEqual(differs(dict(bare, verb="unknown"), "{}"), ["verb"])
        borrowed = '{"evidences":[{"actor":{"user":{"name":"root"}}}],"unmapped":{"impersonated_user":"alice"}}'
        self.assertEqual([differs(dict(bare, actor=actor), borrowed) for actor in ("alice", "root")], [[], ["actor"]])
        self.assertEqual(differs(dict(bare, resource="pods"), '{"resources":[{"type":"pods","name":"pods"}]}'), [])
        self.assertEqual(differs(dict(bare, resource="pods", subresource="log"), '{"resources":[{"type":"pods","name":"pods/log"}]}'), [])
        self.assertEqual(differs(bare, '{"count":1.0,"time":"1","unmapped":{"audit_ids":[null],"\\udfff":1}}'), [])
        self.assertEqual(differs(dict(bare, event_count=0), '{"count":-0}'), [])
        self.assertEqual(differs(dict(bare, tactics=["TA0006"]), '{"finding_info":{"attacks":[{"tactic":{"name":"Impact","uid":"TA0006"}}]}}'), ["tactics"])

    def test_anything(self):
        """For any bytes of a record, the check gives a result and raises no exception."""
        chance = random.Random(11)
        seeds = [record for _, record, _, says, _ in records(2) if says is not None] + [json.dumps(self.FINDING).encode()]
        pieces = [b"[" * 200, b"{", b"}", b'"', b"\\", b"\\ud800", b",", b":", b"null", b"\0", b"\xff", b"9" * 5000, b'"level":', b"NaN", b'{"a":' * 200]
        for _ in range(FUZZ_ROUNDS):
            record = bytearray(chance.choice(seeds))
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(record) + 1)
                record[at : at + chance.randint(0, 3)] = chance.choice(pieces) if chance.random() < 0.7 else chance.randbytes(2)
            record = bytes(record)
            text = record.decode(errors="replace")
            for row in ({"raw": record}, {"annotations": text}, {"request_object": text, "verb": "get"}, {"shape": text, "audit_id": "a"}):
                for events in EVENTS.values():
                    found = events(row, verify.record_of("events", row))
                    self.assertTrue(found is None or set(found) <= set(events.compared))
            found = verify.alert_differs({"ocsf": record.decode(errors="replace")}, record)
            self.assertTrue(found is None or isinstance(found, list))
        for record in (b"[" * 1_000_000, b'{"a":' * 300_000, b'"' + b"\\\"" * 1_000_000, b"9" * 1_000_000, b" " * ((64 << 20) + 1)):
            for events in EVENTS.values():
                self.assertIsNone(events({"raw": record}, record))

    EVENT = (
        '{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a\\u00e9é","stage":"ResponseComplete","requestURI":"/x?a=\\"b\\\\","verb":"get",'
        '"user":{"username":"u","groups":["g","h"],"extra":{"k":["v"]}},"sourceIPs":["1.2.3.4"],"objectRef":{"resource":"pods","name":"n"},'
        '"responseStatus":{"metadata":{},"code":200},"requestObject":{"a":[1,{"b":null}]},"requestReceivedTimestamp":"2026-03-02T10:00:00.1Z",'
        '"annotations":{"authorization.k8s.io/decision":"allow"}}'
    )

    def test_damage(self):
        """A record that was cut or changed anywhere gives fewer or other columns, and never raises
        an unexpected exception. The fast and the slow way of reading give the same result."""
        chance, event, quoted = random.Random(13), self.EVENT, json.dumps(self.EVENT)
        whole = [event, quoted, '{"log":%s}' % quoted, "2026-03-02T10:00:00Z stdout F " + event, '{"message":%s}' % event, '{"body":{"stringValue":%s}}' % json.dumps('{"log":%s}' % quoted)]
        for record in map(str.encode, whole):
            said = self.both_ways(record)
            self.assertEqual((said["audit_id"], said["faults"]), ("aéé", None))
            for at in range(len(record)):
                found = self.both_ways(record[:at])
                if found is not None:
                    self.assertIn(": not_json", found["faults"])
                    for column, value in found.items():
                        self.assertIn(value, (None, said[column]) if column != "faults" else (value,), record[:at])
            for _ in range(FUZZ_ROUNDS // 4):
                damaged = bytearray(record)
                for _ in range(chance.randint(1, 3)):
                    at = chance.randrange(len(damaged))
                    damaged[at : at + chance.choice((0, 1, 1, 9))] = chance.choice((b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"]", b",", b"\n", b"\\ud800", b"'", b"_", b"[" * 200))
                self.both_ways(bytes(damaged))

    def both_ways(self, record):
        found = []
        for limit in (verify.PARSED_BYTES_MAX, -1):
            with Changed(verify, PARSED_BYTES_MAX=limit):
                try:
                    found.append(EVENTS[2].columns(False, record))
                except verify.NoRecord:
                    found.append(None)
        same = [said and {k: v for k, v in said.items() if v is not None} for said in found]
        self.assertEqual(same[0], same[1], record)
        return found[0]

    def test_long_json_is_judged_as_short_json(self):
        chance, judged = random.Random(17), Counter()
        pieces = b'{ } [ ] , : "a" "\\u00e9" "\\\\" "\\"" "\\x" 1 -0 01 1.5e3 1. true null nul " \\ \' _ \x01 \x02 \x03 "b": {"a":1} [] {} s NaN'.split(b" ") + [b" ", b"\n", b'"\n"']
        for _ in range(10 * FUZZ_ROUNDS):
            text = b"".join(chance.choice(pieces) for _ in range(chance.randint(1, 12)))
            text = b"[%s]" % text if chance.random() < 0.5 else text
            mask = verify.mask_of(text)
            self.assertEqual(len(mask), len(text))
            end, deepest = verify.value_end(text, mask, 0)
            if end is None:
                continue
            short = verify.is_json(text, mask, 0, end, deepest)
            for window in (1, 3, 1 << 20):
                with Changed(verify, PARSED_BYTES_MAX=-1, WINDOW_BYTES=window):
                    self.assertEqual(verify.is_json(text, mask, 0, end, deepest), short, text[:end])
            judged[short] += 1
        self.assertGreater(min(judged.values()), FUZZ_ROUNDS // 10)

    def test_time_grows_with_the_length(self):
        head = b'{"auditID":"a","user":{},"verb":"get","x":'
        shapes = {
            "lists": (head + b"[{}", b",{}", b"]}"),
            "open brackets": (head, b"[", b""),
            "escaped quotes": (head + b'"', b'\\"', b'"}'),
            "escaped quotes that stay open": (head + b'"', b'\\"', b""),
            "strings": (head + b'[""', b',""', b"]}"),
            "members": (head + b"1", b',"b":[1]', b"}"),
            "spaces": (head + b"1", b" ", b"1"),
            "apostrophes": (head + b"[", b"'", b""),
            "backslashes": (head + b"[", b"\\", b""),
            "a prefix": (b"<1>1 - h a p m [", b'"" ', b"{}"),
            "lines": (b'{"log":"a"}', b'\n{"log":"a"}', b""),
            "parts": (b"2026-03-02T10:00:00Z stdout P a", b"\n2026-03-02T10:00:00Z stdout P a", b""),
            "carriers": (b'{"log":"{}"', b',"log":"{"', b"}"),
        }

        def seconds(record):
            start = time.process_time()
            EVENTS[2]({"raw": record}, record)
            return time.process_time() - start

        for what, (before, unit, after) in shapes.items():
            short, long = (before + unit * (size // len(unit)) + after for size in (1 << 18, 1 << 21))
            self.assertLess(seconds(long), 40 * seconds(short) + 2, what)  # 8 times the length; a machine may be busy
        for count in (300, 200_000):
            for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
                body = opened * count + b"1" + closed * count
                said = EVENTS[2].columns(False, head + body + b',"stage":"Panic"}')
                self.assertEqual((said["stage"], said["faults"]), ("Panic", [": too_deep"]))
                said = EVENTS[2].columns(False, head + body[:-1] + b'},"stage":"Panic"}') if closed == b"]" else None
                self.assertEqual(said and (said["stage"], said["faults"]), said and (None, [": not_json"]))

    def test_the_first_piece_of_a_longer_line(self):
        head = b'{"auditID":"a","user":{"username":"u"},"verb":"get","requestObject":"'
        row = {"audit_id": "a", "user_name": "u", "verb": "get", "faults": [": too_long"]}
        for length, faults, differing in (
            (verify.RECORD_BYTES_MAX, [": too_long"], []),
            (verify.RECORD_BYTES_MAX, None, ["faults"]),
            (verify.RECORD_BYTES_MAX - 1, [": too_long"], ["faults"]),
            (verify.RECORD_BYTES_MAX - 1, [": not_json"], []),
            (verify.RECORD_BYTES_MAX + 1, [": too_long"], None),
        ):
            record = head.ljust(length, b"x")
            self.assertEqual(EVENTS[2](dict(row, raw=record, faults=faults), record), differing, (length, faults))


class Changed:
    """Sets names of a module to other values for a while."""

    def __init__(self, module, **values):
        self.module, self.values = module, values

    def swap(self):
        for name, value in self.values.items():
            self.values[name] = getattr(self.module, name)
            setattr(self.module, name, value)

    def __enter__(self):
        self.swap()

    def __exit__(self, *_):
        self.swap()


if __name__ == "__main__":
    unittest.main()
