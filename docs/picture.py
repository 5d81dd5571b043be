"""Take the picture of the app that the documentation shows; needs a Chromium and a demo.

Run:  make demo && .venv/bin/python docs/picture.py runs/demo
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROMPT = "howdy! What is a verb?"


def main(runs: str) -> None:
    """Ask the demo's model one question, and write docs/figures/view.png."""
    sys.path.insert(0, str(HERE.parent / "tests" / "view"))
    from chrome import Chrome

    from headwater.view.serve import open_site

    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no Chromium found (Debian: apt-get install chromium)"
    with open_site([runs]) as app, Chrome(program) as page:
        page.look(1120, 1180)
        page.open(f"{app.url}/i/{app.site.shelf.of('index')[0].key}/ask")
        page.click("#prompt")
        page.type(PROMPT)
        page.press("Enter", modifiers=2)
        page.wait_for("document.querySelectorAll('.hit').length > 0", 120)
        page.picture(HERE / "figures" / "view.png", whole=False)


if __name__ == "__main__":
    main(sys.argv[1])
