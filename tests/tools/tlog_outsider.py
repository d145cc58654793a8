"""Reads the proof log of a volume with an implementation of C2SP tlog-tiles, tlog-checkpoint and tlog-cosignature that is not ours (PyPI:
aics-tlog), and says what it could verify.

    python3 tlog_outsider.py VOLUME ORIGIN LOG_KEY [WITNESS_VKEY]...

LOG_KEY is the public key, 32 bytes in base64. Prints one line of JSON; any disagreement is an exception, and exit code 1.
"""

import base64
import json
import pathlib
import sys

import aics_tlog as tlog


def main(volume, origin, log_key, *witnesses):
    volume = pathlib.Path(volume)
    log = tlog.vkey_from_ed25519(origin, base64.b64decode(log_key))
    witnesses = [tlog.parse_vkey(text) for text in witnesses]
    reader = tlog.FileSystemTileReader(volume / "_tlog")
    commits = [path.read_bytes() for path in sorted((volume / "_delta_log").glob("*.json"))]

    def head(path, keys, quorum):
        note = tlog.parse_note(path.read_bytes())
        result = tlog.verify_checkpoint(note, log, keys, quorum, expected_origin=origin)
        assert result.ok and result.log_ok, (path, result)
        return result

    heads = [head(path, [], 0) for path in sorted((volume / "_tlog" / "checkpoint").iterdir())]
    cosigned = [head(path, witnesses, 1) for path in sorted((volume / "_tlog" / "witness").glob("*"))]
    newest = max(head.size for head in heads)
    included = consistent = 0
    for result in heads + cosigned:
        assert tlog.tree_root_from_tiles(reader, result.size, newest) == result.root, result
        for index in range(result.size):
            proof = tlog.inclusion_proof_from_tiles(reader, index, result.size)
            assert tlog.verify_inclusion(tlog.leaf_hash(commits[index]), index, result.size, proof, result.root), (index, result)
            included += 1
        for old in heads:
            if 0 < old.size <= result.size:
                proof = tlog.consistency_proof_from_tiles(reader, old.size, result.size)
                assert tlog.verify_consistency(old.size, result.size, old.root, result.root, proof), (old, result)
                consistent += 1
    print(json.dumps({"heads": len(heads), "cosigned": len(cosigned), "newest": newest, "included": included, "consistent": consistent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
