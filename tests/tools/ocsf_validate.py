#!/usr/bin/env python3
"""Checks findings, one JSON object per line on standard input, against the OCSF schema that each names.

Prints the number of findings checked. Exits with 1 and one line for each fault when a finding does not
satisfy the schema of its class and version, and with 3 when PyPI's ocsf-json-schema and jsonschema are
not installed. No network is used: the package holds the schemas.
"""

import json
import sys

FAULTS_MAX = 20


def main():
    try:
        from jsonschema import Draft202012Validator
        from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
    except ImportError as error:
        print(f"not installed: {error}", file=sys.stderr)
        return 3

    validators, checked, faults = {}, 0, []
    for number, line in enumerate(sys.stdin, 1):
        finding = json.loads(line)
        key = finding["metadata"]["version"], finding["class_uid"], tuple(finding["metadata"].get("profiles", []))
        if key not in validators:
            version, class_uid, profiles = key
            schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version))
            name = schema.lookup_class_name_from_uid(class_uid)
            validators[key] = Draft202012Validator(schema.get_class_schema(name, list(profiles)))
        for error in validators[key].iter_errors(finding):
            path = "/".join(str(part) for part in error.absolute_path)
            faults.append(f"finding {number}, /{path}: {error.message[:300]}")
        checked += 1
    for fault in faults[:FAULTS_MAX]:
        print(fault, file=sys.stderr)
    if len(faults) > FAULTS_MAX:
        print(f"and {len(faults) - FAULTS_MAX} more", file=sys.stderr)
    print(checked)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
