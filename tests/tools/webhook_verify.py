"""Judges signed webhooks: lines of JSON with secret, headers and body (base64) on standard input.

Prints how many PyPI's standardwebhooks accepts; exit code 1 at the first that it does not.
"""

import base64
import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

count = 0
for line in sys.stdin:
    posted = json.loads(line)
    try:
        Webhook(posted["secret"]).verify(base64.b64decode(posted["body"]), posted["headers"])
    except WebhookVerificationError as error:
        sys.exit(f"{posted['headers']}: {error}")
    count += 1
print(count)
