"""A page in a browser without a screen, if there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
    "--allow-file-access-from-files",  # so that one file may look into another
    "--virtual-time-budget=10000",  # milliseconds
)
# The page is opened as it is, in a frame: its own policy would refuse a script that a test adds.
FRAME = """<!doctype html>
<iframe src="{page}" width="1200" height="800"></iframe>
<pre id="said"></pre>
<script>
function look(page, view) {{
{script}
}}
onload = () => {{
  let said;
  try {{ said = look(frames[0].document, frames[0]); }} catch (error) {{ said = String(error); }}
  document.getElementById("said").textContent = JSON.stringify(said);
}}
</script>
"""


def looked_at(page: Path, script: str, *options: str) -> Any:
    """What a script returns that is given the open page and its window. `options`: further ones of the browser."""
    assert BROWSER
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(page=page.name, script=script))
    profile = page.with_name("profile")
    command = [BROWSER, *OPTIONS, *options, f"--user-data-dir={profile}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr
    return json.loads(html.unescape(said[1]))
