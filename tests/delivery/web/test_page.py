"""The page in a real headless Chromium, beside Python."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from delivery.web.litert_js import LiteRtJsMissing, find_litert_js
from delivery.web.tf_js import TfJsMissing, find_tf_js
from tests.delivery.web.chromium import Page, browser, find_chromium, served

RUNTIMES = {"litert": ("LiteRT.js", ["--quantize", "int8"]), "tfjs": ("TF.js", ["--runtime", "tfjs"])}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    try:
        if request.param == "litert":
            find_litert_js()
        else:
            find_tf_js()
    except LiteRtJsMissing as missing:
        pytest.skip(f"{missing} (make browser does so)")
    except TfJsMissing as missing:
        pytest.skip(str(missing))
    return request.param


@pytest.fixture(scope="module")
def page_folder(runtime: str, digits_run: Path) -> Path:
    from launch.cli import run

    assert run(["export", str(digits_run), "--to", "web", *RUNTIMES[runtime][1]]) == 0
    return digits_run / "export" / "web"


@pytest.fixture(scope="module")
def address(page_folder: Path) -> Iterator[str]:
    with served(page_folder) as address:
        yield address


@pytest.fixture(scope="module")
def page(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if find_chromium() is None:
        pytest.skip("there is no chromium: make browser installs it")
    with browser(tmp_path_factory.mktemp(f"profile-{runtime}")) as page:
        yield page


def _open(page: Page, address: str) -> str:
    page.send("Page.navigate", url=address)
    page.wait_for(lambda page: page.evaluate("document.body?.dataset.state ?? 'loading'") != "loading")
    return page.evaluate("document.body.dataset.state")


@pytest.mark.processes
def test_the_page_gives_pythons_classes_and_answers_a_drawing(
    address: str, page_folder: Path, page: Page, runtime: str
):
    assert _open(page, address) == "ready", page.evaluate("document.body.innerText")
    assert RUNTIMES[runtime][0] in page.evaluate("document.getElementById('facts').textContent")
    compared, equal, difference = (
        float(page.evaluate(f"document.body.dataset.{name}")) for name in ("compared", "equal", "difference")
    )
    assert compared == equal == 64
    assert 0 < difference < 0.5, "rounding differs between the two; nothing more may"

    assert page.evaluate("document.body.dataset.answer") == ""
    box = "(() => { const box = pad.getBoundingClientRect(); return [box.x, box.y, box.width]; })()"
    left, top, side = page.evaluate(box)
    page.draw([(left + side * 0.5, top + side * (0.15 + 0.07 * i)) for i in range(11)])  # an upright stroke
    page.wait_for(lambda page: page.evaluate("document.body.dataset.answer") != "")
    shown = "[...document.querySelectorAll('#bars li span:last-child')].map((one) => parseFloat(one.textContent))"
    shares = page.evaluate(shown)
    assert len(shares) == 10 and 99 < sum(shares) < 101

    expected = json.loads((page_folder / "samples.json").read_text())["outputs"][3]
    page.evaluate("document.querySelectorAll('#samples button')[3].click()")
    page.wait_for(lambda page: page.evaluate("document.body.dataset.answer") == str(np.argmax(expected)))

    page.evaluate("document.getElementById('clear').click()")
    assert page.evaluate("document.body.dataset.answer") == ""


def test_a_page_whose_model_is_damaged_says_so(page_folder: Path, address: str, page: Page, runtime: str):
    model = page_folder / ("model.tflite" if runtime == "litert" else "model/group1-shard1of1.bin")
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 2])
    page.send("Network.setCacheDisabled", cacheDisabled=True)
    try:
        assert _open(page, address) == "failed"
        assert "The model cannot be run" in page.evaluate("document.body.innerText")
    finally:
        model.write_bytes(content)


def test_only_the_pages_own_files_may_run(page_folder: Path, page: Page, address: str):
    """No script of another place, and none in the page but its import map."""
    page.send("Page.navigate", url=address)
    page.wait_for(lambda page: page.evaluate("document.body !== null"))
    page.evaluate(
        "window.ran = false; const script = document.createElement('script'); script.textContent = 'ran = true';"
        "document.body.append(script);"
    )
    assert page.evaluate("ran") is False
