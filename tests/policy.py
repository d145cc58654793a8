#!/usr/bin/env python3
"""Checks the dependency tree against deny.toml, offline, from `cargo metadata` and `cargo tree`.

Every crate must be from crates.io and have a licence that deny.toml allows. No banned crate, second
version or feature may be in the tree. The user's build and the tests must use every dependency
with the same features; otherwise `cargo test` would silently compile the heavy ones a second time.

Exit code 0: there is no finding. 1: the findings are printed, one per line.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def name_of(package):
    """A package as `cargo tree` shows it."""
    return package["name"], f'v{package["version"]}'


def resolved(targets):
    """The packages that are built for any of the targets, each with its features and its users."""
    packages = {}
    for target in targets:
        metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target))
        by_id = {package["id"]: package for package in metadata["packages"]}
        # Metadata also lists optional crates that only a weak feature (`ring?/alloc`) names and nothing builds.
        tree = cargo("tree", "--workspace", "--target", target, "--prefix", "none", "--format", "{p}").splitlines()
        built = {tuple(line.split()[:2]) for line in tree if line}
        nodes = [node for node in metadata["resolve"]["nodes"] if name_of(by_id[node["id"]]) in built]
        for node in nodes:
            package = packages.setdefault(node["id"], by_id[node["id"]] | {"enabled": set(), "users": set()})
            package["enabled"].update(node["features"])
        for node in nodes:
            for dependency in (dependency for dependency in node["deps"] if dependency["pkg"] in packages):
                packages[dependency["pkg"]]["users"].add(by_id[node["id"]]["name"])
    return list(packages.values())


def licence_accepted(expression, allowed, used):
    """Whether an SPDX expression can be met with allowed licences; notes in `used` which ones were."""
    # Old manifests write `MIT/Apache-2.0` and mean OR.
    tokens = re.findall(r"\(|\)|[A-Za-z0-9.+-]+(?: WITH [A-Za-z0-9.-]+)?", expression.replace("/", " OR "))

    def any_of():
        accepted = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            right = all_of()
            accepted = accepted or right
        return accepted

    def all_of():
        accepted = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            right = one()
            accepted = accepted and right
        return accepted

    def one():
        token = tokens.pop(0)
        if token == "(":
            accepted = any_of()
            assert tokens.pop(0) == ")", expression
            return accepted
        if token in allowed:
            used.add(token)
        return token in allowed

    accepted = any_of()
    assert not tokens, f"cannot read the licence expression {expression!r}"
    return accepted


def licence_findings(policy, packages):
    findings, used = [], set()
    allowed = set(policy["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in policy["licenses"].get("exceptions", [])}
    for package in packages:
        name, expression = f'{package["name"]} {package["version"]}', package["license"]
        here = allowed | exceptions.get(package["name"], set())
        if not expression:
            findings.append(f"{name} names no licence")
        elif not licence_accepted(expression, here, used):
            findings.append(f"{name} is under {expression}, which deny.toml does not allow")
    findings += [f"deny.toml allows {licence}, which no crate needs" for licence in sorted(allowed - used)]
    names = {package["name"] for package in packages}
    findings += [f"deny.toml makes an exception for {name}, which is not used" for name in exceptions if name not in names]
    return findings


def ban_findings(policy, packages):
    findings = []
    for ban in policy["bans"]["deny"]:
        versions = sorted(package["version"] for package in packages if package["name"] == ban["crate"])
        if ban.get("deny-multiple-versions"):
            if len(versions) > 1:
                findings.append(f'{ban["crate"]} is used in versions {", ".join(versions)}: {ban["reason"]}')
        elif "wrappers" in ban:
            users = {user for package in packages if package["name"] == ban["crate"] for user in package["users"]}
            for user in sorted(users.difference(ban["wrappers"])):
                findings.append(f'{user} may not depend on {ban["crate"]}: {ban["reason"]}')
        elif versions:
            findings.append(f'{ban["crate"]} is banned: {ban["reason"]}')
    for ban in policy["bans"]["features"]:
        for package in packages:
            if package["name"] != ban["crate"]:
                continue
            hit = sorted(package["enabled"].intersection(ban.get("deny", [])))
            if hit:
                findings.append(f'{ban["crate"]} is built with {", ".join(hit)}: {ban["reason"]}')
            if ban.get("exact") and package["enabled"] != set(ban["allow"]):
                enabled = ", ".join(sorted(package["enabled"])) or "no feature"
                findings.append(f'{ban["crate"]} is built with {enabled}, not exactly {", ".join(ban["allow"])}: {ban["reason"]}')
    for package in packages:
        for dependency in package["dependencies"] if package["source"] is None else []:
            if dependency["req"] == "*" and not dependency.get("path"):
                findings.append(f'{package["name"]} takes any version of {dependency["name"]}')
    return findings


def source_findings(packages):
    for package in packages:
        inside = package["source"] is None and pathlib.Path(package["manifest_path"]).is_relative_to(ROOT)
        if not inside and package["source"] != CRATES_IO:
            yield f'{package["name"]} {package["version"]} comes from {package["source"] or package["manifest_path"]}'


def one_build_findings():
    """Dependencies that the user's build has with other features than the build of all tests."""

    def features(*selection):
        lines = cargo("tree", *selection, "--prefix", "none", "--format", "{p} [{f}]").splitlines()
        return {line.removesuffix(" (*)") for line in lines if line and "(/" not in line}

    user, tests = features("--package", "strongroom", "--edges", "normal,build"), features("--workspace")
    for line in sorted(user - tests):
        yield f"built twice, for users as {line} and for tests otherwise: align the features of the dev-dependencies"


def main():
    policy = tomllib.loads((ROOT / "deny.toml").read_text())
    packages = resolved(policy["graph"]["targets"])
    findings = licence_findings(policy, packages) + ban_findings(policy, packages)
    findings += [*source_findings(packages), *one_build_findings()]
    for finding in findings:
        print(finding)
    outside = sum(package["source"] is not None for package in packages)
    print(f"policy: {outside} crates from outside checked, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
