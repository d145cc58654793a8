"""Verifies signed webhooks with PyPI's standardwebhooks.

Standard input has one JSON object per line, with secret, headers and body (base64). Prints the
number of valid webhooks; exits with code 1 at the first invalid one.
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
