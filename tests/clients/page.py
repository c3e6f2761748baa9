"""Runs every program of docs/clients.md as it stands, those of the README at this proxy, and looks at what went through.

Each of the page says "Echo: Good morning" twice, plain and streamed, and then makes a call with a template as the user alice.
"""

import os
import pathlib
import re
import subprocess
import sys

import checks
from checks import check

PAGE = pathlib.Path("docs/clients.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^### ([^\n]+)\n(?:(?!^###).)*?^```(python|js)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
RUNTIMES = {"python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}
# Where node looks for what a program imports.
DIRECTORY = {"python": ".", "js": "tests/clients"}


def run(language, program):
    """Gives what a program prints."""
    command = [*RUNTIMES[language], program]
    done = subprocess.run(
        command, cwd=DIRECTORY[language], env=os.environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-800:]}"
    return done.stdout


def program_check(name, language, program):
    def works():
        before = len(checks.executions("alice"))
        printed = run(language, program)
        assert printed.count("Echo: Good morning") == 2, f"printed {printed!r}"
        # Programs that cannot show the user of a call have no third one.
        if "alice" in program:
            checks.eventually(lambda: len(checks.executions("alice")) > before, "no execution of alice was recorded")
            newest = checks.executions("alice")[0]
            assert newest["template_name"] == "nlu_topic_extraction", newest["template_name"]
            assert newest["outcome"] == "success", newest["outcome"]

    works.__name__ = f"{language}_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
    return check(works)


for one in PROGRAMS:
    program_check(*one)


README = pathlib.Path("README.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8080", checks.CHAPERONE)
SHOWN = re.findall(r"^\*\*([^*\n]+)\*\*[^\n]*\n+```(python|js)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown_check(name, language, program):
    def works():
        assert "Echo: " in run(language, program), "the answer is not printed"

    works.__name__ = f"readme_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
    return check(works)


for one in SHOWN:
    shown_check(*one)


@check
def every_client_is_on_the_page():
    assert len(PROGRAMS) == 11, [name for name, _, _ in PROGRAMS]
    assert len(SHOWN) == 4, [name for name, _, _ in SHOWN]


checks.run()
