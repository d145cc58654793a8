"""An RFC 3161 authority for tests: OpenSSL's, behind HTTP.

    python3 tsa_server.py FOLDER [rsa|ec]

Makes an authority's certificate (ca.pem), one for timestamps under it, and another authority (other.pem) in FOLDER; then listens on 127.0.0.1, prints the port, and
answers POSTs with what `openssl ts -reply` says. The path chooses what kind of authority it is: /good; /foreign is under the other authority; /replay answers every query with
the first answer it gave; /web signs with a certificate that is not for timestamps; /refuse grants nothing; /broken answers with no timestamp at all.
"""

import http.server
import pathlib
import subprocess
import sys
import threading

CONFIG = """
[tsa]
default_tsa = tsa_config
[tsa_config]
dir = {folder}
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.1
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""
LOCK = threading.Lock()


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key(kind, path):
    options = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"] if kind == "rsa" else ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("genpkey", *options, "-out", path)


def certificates(folder, kind):
    for name in ("ca", "other"):
        key(kind, folder / (name + ".key"))
        openssl("req", "-x509", "-new", "-key", folder / (name + ".key"), "-subj", "/O=Tests/CN=" + name, "-days", "3650", "-out", folder / (name + ".pem"),
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name, issuer, usage in (("good", "ca", "critical,timeStamping"), ("foreign", "other", "critical,timeStamping"), ("web", "ca", "serverAuth")):
        key(kind, folder / (name + ".key"))
        openssl("req", "-new", "-key", folder / (name + ".key"), "-subj", "/O=Tests/CN=TSA " + name, "-out", folder / (name + ".csr"))
        extensions = folder / (name + ".ext")
        extensions.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n" % usage)
        openssl("x509", "-req", "-in", folder / (name + ".csr"), "-CA", folder / (issuer + ".pem"), "-CAkey", folder / (issuer + ".key"), "-CAcreateserial", "-days", "3650",
                "-extfile", extensions, "-out", folder / (name + ".pem"))
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))


def reply(folder, query, signer):
    (folder / "query.tsq").write_bytes(query)
    openssl("ts", "-reply", "-config", folder / "tsa.cnf", "-queryfile", folder / "query.tsq", "-signer", folder / (signer + ".pem"), "-inkey", folder / (signer + ".key"), "-out", folder / "reply.tsr")
    return (folder / "reply.tsr").read_bytes()


def der(tag, *parts):
    data = b"".join(parts)
    length = bytes([len(data)]) if len(data) < 128 else bytes([0x82]) + len(data).to_bytes(2, "big")
    return bytes([tag]) + length + data


def reply_by_another(folder, query, signer):
    """The answer of the good authority, signed again with a certificate that OpenSSL would refuse to sign with."""
    reply(folder, query, "good")
    openssl("ts", "-reply", "-in", folder / "reply.tsr", "-token_out", "-out", folder / "token.der")
    openssl("cms", "-verify", "-noverify", "-inform", "DER", "-in", folder / "token.der", "-out", folder / "info.der")
    openssl("cms", "-sign", "-cades", "-binary", "-nodetach", "-econtent_type", "1.2.840.113549.1.9.16.1.4", "-signer", folder / (signer + ".pem"), "-inkey", folder / (signer + ".key"),
            "-md", "sha256", "-in", folder / "info.der", "-outform", "DER", "-out", folder / "token.der")
    return der(0x30, der(0x30, b"\x02\x01\x00"), (folder / "token.der").read_bytes())


def main(folder, kind="rsa"):
    folder, first = pathlib.Path(folder), {}
    certificates(folder, kind)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            query = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query", self.headers
            with LOCK:
                name = self.path.strip("/")
                if name == "refuse":
                    answer = bytes.fromhex("30053003020102")
                elif name == "broken":
                    answer = b"no timestamp"
                elif name == "replay":
                    answer = first.setdefault(name, reply(folder, query, "good"))
                elif name == "web":
                    answer = reply_by_another(folder, query, name)
                else:
                    answer = reply(folder, query, name)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
