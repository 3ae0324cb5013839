"""The page in a real browser: nothing complains, all can be read and reached, the map is right."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from kvmenc.capture import BlockFacts
from kvmenc.memory.words import bits_at, count, from_pages, mask_tail, ones
from kvmenc.report.page.document import page
from kvmenc.report.page.pyramid import STRETCH_PAGES
from tests.capture.captures import sound_capture
from tests.report.page.browser import Browser, need_chromium
from tests.report.page.pages import memory_of, whole_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.capture import Bitmaps, Capture

pytestmark = pytest.mark.chromium

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
#: Two stretches and some pages, the last word not full.
NPAGES = 2 * STRETCH_PAGES + 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_chromium()
    with Browser() as it:
        yield it


@pytest.fixture(autouse=True)
def nothing_complains(browser: Browser) -> Iterator[None]:
    browser.complaints.clear()
    yield
    assert browser.complaints == []


@pytest.fixture(scope="module")
def guest() -> tuple[Capture, Bitmaps]:
    """RAM whose pages differ from one to the next, a ROM, and names that want to be markup."""
    rng = np.random.default_rng(7)
    private = ones(NPAGES)
    private[:1000] = rng.integers(0, 2**64, 1000, np.uint64)
    private[-300:-17] = 0
    mask_tail(private, NPAGES)
    zero = rng.integers(0, 2**64, private.size, np.uint64) & ~private
    dirty = from_pages(rng.integers(0, NPAGES, 30_000), NPAGES)
    mask_tail(zero, NPAGES)
    dirty[-40:-20] = rng.integers(0, 2**64, 20, np.uint64)
    facts = sound_capture()
    ram = BlockFacts(HOSTILE, NPAGES, count(private, NPAGES), count(zero, NPAGES), 0)
    rom = msgspec.structs.replace(facts.blocks[1], name="rom")
    slots = tuple(
        msgspec.structs.replace(it, block=name)
        for it, name in zip(facts.slots, (HOSTILE, "rom"), strict=True)
    )
    capture = msgspec.structs.replace(facts, source=HOSTILE, blocks=(ram, rom), slots=slots)
    return capture, {
        ("private", HOSTILE): private,
        ("zero", HOSTILE): zero,
        ("dirty", HOSTILE): dirty,
        ("private", "rom"): ones(64),
    }


@pytest.fixture(scope="module")
def file(guest: tuple[Capture, Bitmaps], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    plan, grid = whole_plan()
    plan = msgspec.structs.replace(plan, guest=msgspec.structs.replace(plan.guest, source=HOSTILE))
    (folder / "a.html").write_bytes(page(memory_of(folder, *guest), plan, grid))
    return folder / "a.html"


def readout(browser: Browser) -> str:
    """What is said of the framed cell, once what is in view is unpacked."""
    text: str = browser.run(
        """new Promise((resolve) => {
          const look = () => {
            const text = document.getElementById("map-readout").textContent;
            if (text && !text.includes("being unpacked")) resolve(text); else setTimeout(look, 5);
          };
          look();
        })"""
    )
    return text


def opened(browser: Browser, file: Path, **how: Any) -> None:
    browser.open(file, **how)
    assert readout(browser)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1000])
def test_it_fits_any_width_and_all_text_can_be_read(
    browser: Browser, file: Path, width: int, dark: bool
) -> None:
    """WCAG 2.2: 4.5 to 1 for text (1.4.3), 3 to 1 for what pictures are made of (1.4.11)."""
    opened(browser, file, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
    assert browser.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    poor, texts = browser.run(_CONTRAST)
    assert poor == []
    assert texts > 300
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 24, 27)" if dark else "rgb(253, 253, 252)")


# All texts, and swatches and bars by their own colour, against what is painted behind them.
_CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = parse(text).map((it) => it / 255)
      .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const grounds = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const style = getComputedStyle(it);
      if (style.backgroundImage !== "none") return style.backgroundImage.match(/rgb\\([^)]*\\)/g);
      if ((parse(style.backgroundColor)[3] ?? 1) > 0) return [style.backgroundColor];
    }
    return ["rgb(255, 255, 255)"];
  };
  const poor = [];
  let texts = 0;
  const check = (element, colour, least, what) => {
    for (const ground of grounds(element)) {
      if (contrast(colour, ground) < least) poor.push([what, colour, ground]);
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (["TITLE", "SCRIPT", "NOSCRIPT"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    texts += 1;
    check(element, element.closest("svg") ? style.fill : style.color, 4.5, walker.currentNode.data);
  }
  for (const it of document.querySelectorAll(".swatch")) {
    check(it.parentElement, getComputedStyle(it).backgroundColor, 3, it.className);
  }
  for (const it of document.querySelectorAll("rect")) {
    check(it.parentElement, getComputedStyle(it).fill, 3, it.className.baseVal);
  }
  for (const it of document.querySelectorAll("polyline")) {
    check(it.parentElement, getComputedStyle(it).stroke, 3, it.className.baseVal);
  }
  return [poor, texts];
})()"""


def test_on_paper_it_is_light_and_keeps_the_colours_that_tell(browser: Browser, file: Path) -> None:
    opened(browser, file, dark=True)
    checks = {
        "poor": _CONTRAST,
        "ground": "getComputedStyle(document.body).backgroundColor",
        "kept": _KEPT.format(property="printColorAdjust", value="exact"),
        "painted": _PAINTED_AS_THE_LEGEND,
    }
    script = ", ".join(f"{name}: {check}" for name, check in checks.items())
    browser.run(
        f"matchMedia('print').addEventListener('change', () => {{ onPaper ??= {{ {script} }}; }});"
        "onPaper = null;"
    )
    browser.call("Page.printToPDF")
    (poor, texts), *others = browser.run("onPaper").values()
    assert (poor, texts > 300) == ([], True)
    assert others == ["rgb(255, 255, 255)", True, True]


def test_where_the_system_chooses_colours_those_that_tell_are_kept(
    browser: Browser, file: Path
) -> None:
    opened(browser, file)
    forced = [{"name": "forced-colors", "value": "active"}]
    browser.call("Emulation.setEmulatedMedia", features=forced)
    assert browser.run(_KEPT.format(property="forcedColorAdjust", value="none"))
    assert browser.run(_PAINTED_AS_THE_LEGEND)


_KEPT = """[...document.querySelectorAll(".swatch, .bar, table.grid td")]
  .every((it) => getComputedStyle(it).{property} === "{value}")"""
#: The map is drawn anew, or the colours of the screen would stand beside a legend of others.
_PAINTED_AS_THE_LEGEND = """(() => {
  const legend = getComputedStyle(document.querySelector(".swatch.private")).backgroundColor;
  const canvas = document.getElementById("map");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) seen.add(`rgb(${data[i]}, ${data[i+1]}, ${data[i+2]})`);
  return seen.has(legend);
})()"""


def test_markup_in_a_name_is_shown_and_not_run(browser: Browser, file: Path) -> None:
    opened(browser, file)
    option = browser.run("document.getElementById('map-block').options[0].textContent")
    assert option == f"{HOSTILE} (8 GiB)"
    assert browser.run("document.images.length") == 0
    assert browser.run("document.title").startswith(f"Migrating {HOSTILE}")


def test_even_what_got_in_could_not_ask_the_network_nor_run(browser: Browser, file: Path) -> None:
    opened(browser, file)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        fetched = browser.run(f"fetch('{url}').then(() => 'fetched', () => 'refused')")
        browser.run(f"document.body.append(Object.assign(new Image(), {{src: '{url}'}}))")
        browser.run("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"ran = 1\">b</b>')")
        browser.run("document.body.lastChild.click()")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert fetched == "refused"
    assert browser.run("typeof ran") == "undefined"
    assert any("Content Security Policy" in it for it in browser.complaints)
    browser.complaints.clear()


def test_all_can_be_reached_and_seen_by_keyboard(browser: Browser, file: Path) -> None:
    opened(browser, file)
    stops = []
    for _ in range(60):
        browser.press("Tab")
        name, outline = browser.run(
            """(() => {
              const it = document.activeElement;
              return [it.id || it.getAttribute("href") || it.getAttribute("aria-label")
                      || it.textContent.slice(0, 60), getComputedStyle(it).outlineStyle];
            })()"""
        )
        if browser.run("document.activeElement === document.body"):
            break  # past the last stop
        assert outline == "solid", name
        stops.append(name)
    controls = ["map-block", "map-in", "map-out", "map-whole", "map-back", "map-on", "map-page"]
    at = stops.index("map-block")
    assert stops[at : at + 8] == [*controls, "map"]
    assert stops[:2] == ["#verdict", "#advice"]
    assert "The rounds by road, as a table" in stops


def test_the_map_is_named_and_tells_what_it_shows(browser: Browser, file: Path) -> None:
    opened(browser, file)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    said = [(it["role"]["value"], it.get("name", {}).get("value")) for it in tree if "role" in it]
    assert ("application", "Memory map") in said
    assert ("button", "Zoom in") in said
    assert ("combobox", "RAMBlock") in said
    assert ("textbox", "Page") in said
    assert any(role == "status" for role, _ in said)
    assert any(role == "image" and name and name.startswith("Pages written") for role, name in said)


def expected(guest: tuple[Capture, Bitmaps], first: int, last: int) -> tuple[int, ...]:
    """Pages, private, shared, zero, written private, written shared; page by page."""
    bitmaps = guest[1]
    pages = np.arange(first, last + 1)
    private, zero, dirty = (
        bits_at(bitmaps[kind, HOSTILE], pages) for kind in ("private", "zero", "dirty")
    )
    sums = (private, ~private, zero, dirty & private, dirty & ~private)
    return (pages.size, *(int(it.sum()) for it in sums))


_SEVERAL = re.compile(
    r"Pages ([\d,]+) to ([\d,]+) \([^)]*\): private ([\d,]+) \([^)]*\), shared ([\d,]+) \([^)]*\), "
    r"of which zero ([\d,]+)\. Written: ([\d,]+) private, ([\d,]+) shared\."
)
_ONE = re.compile(
    r"Page ([\d,]+) \([^)]*\): (private|shared, zero|shared, not zero), (written|not written)\."
)


def check_readout(browser: Browser, guest: tuple[Capture, Bitmaps]) -> int:
    """The first page that is told of, after all of it was compared."""
    text = readout(browser)
    if match := _ONE.fullmatch(text):
        first = int(match[1].replace(",", ""))
        _, private, _, zero, *written = expected(guest, first, first)
        state = "private" if private else "shared, zero" if zero else "shared, not zero"
        assert (match[2], match[3]) == (state, "written" if any(written) else "not written")
        return first
    match = _SEVERAL.fullmatch(text)
    assert match, text
    first, last, *counts = (int(it.replace(",", "")) for it in match.groups())
    assert tuple(counts) == expected(guest, first, last)[1:]
    return first


def test_the_map_tells_what_the_bitmaps_hold(
    browser: Browser, file: Path, guest: tuple[Capture, Bitmaps]
) -> None:
    """At each depth, at both ends and between: across words, stretches and the last page."""
    opened(browser, file)
    browser.run("document.getElementById('map').focus()")
    places = set()
    for _ in range(7):
        for keys in (["Home"], ["ArrowRight", "ArrowDown"], ["End"], ["ArrowLeft", "ArrowUp"]):
            browser.press(*keys)
            places.add(check_readout(browser, guest))
        browser.press("PageUp", "PageUp")
        places.add(check_readout(browser, guest))
        browser.press("+")
        check_readout(browser, guest)
    assert {0, NPAGES - 1} <= places
    assert len(places) > 20
    browser.press("0")
    assert re.match(r"Pages [\d,]+ to [\d,]+ \(8 MiB,", readout(browser))


def test_a_page_is_found_by_its_number_and_by_a_click(
    browser: Browser, file: Path, guest: tuple[Capture, Bitmaps]
) -> None:
    opened(browser, file)
    for typed, found in (("1048577", 1048577), ("0x100001", 1048577), ("1,000", 1000)):
        browser.run(f"document.getElementById('map-page').value = ''; {_FOCUS_PAGE}")
        browser.press(*typed, "Enter")
        assert check_readout(browser, guest) == found
    browser.press("9", "9", "9", "9", "9", "9", "9", "9", "Enter")
    assert browser.run("document.getElementById('map-page').getAttribute('aria-invalid')") == "true"
    assert check_readout(browser, guest) == 1000
    assert ", gfn 0x164)" in _at_page(browser, 100)

    box = browser.run(
        "(() => { const it = document.getElementById('map'); it.scrollIntoView();"
        "const { x, y, width } = it.getBoundingClientRect(); return [x, y, width]; })()"
    )
    x, y = box[0] + 76 + (box[2] - 76) * 2.5 / 64, box[1] + 12 + 14 * 1.5
    browser.click(x, y)
    there = check_readout(browser, guest)
    assert there % 64 == 2
    browser.click(x, y, times=2)
    assert check_readout(browser, guest) == there, "no smaller cell than a page"


_FOCUS_PAGE = "document.getElementById('map-page').focus()"


def _at_page(browser: Browser, number: int) -> str:
    browser.run(f"document.getElementById('map-page').value = ''; {_FOCUS_PAGE}")
    browser.press(*str(number), "Enter")
    return readout(browser)


def test_what_is_painted_is_what_is_there(
    browser: Browser, file: Path, guest: tuple[Capture, Bitmaps]
) -> None:
    """The bands of each single page of a view, by the colours that the legend has."""
    opened(browser, file)
    _at_page(browser, 20_000)
    painted = browser.run(
        """(() => {
          const canvas = document.getElementById("map");
          const paint = canvas.getContext("2d");
          const left = 76, step = (canvas.clientWidth - left) / 64;
          const { data, width } = paint.getImageData(0, 0, canvas.width, canvas.height);
          const at = (x, y) => [...data.slice((y * width + x) * 4, (y * width + x) * 4 + 3)].join();
          const bands = [];
          for (let row = 0; row < 32; row++) {
            for (let column = 0; column < 64; column++) {
              const x = Math.round(left + (column + 0.4) * step);
              bands.push([at(x, 12 + row * 14 + 4), at(x, 12 + row * 14 + 10)]);
            }
          }
          return bands;
        })()"""
    )
    colours = {
        name: browser.run(
            f"getComputedStyle(document.querySelector('.swatch.{name}')).backgroundColor"
        )
        .removeprefix("rgb(")
        .removesuffix(")")
        .replace(" ", "")
        for name in ("private", "shared", "zero")
    }
    first = 20_000 - 20_000 % 64 - 16 * 64
    pages = np.arange(first, first + 32 * 64)
    private, zero, dirty = (
        bits_at(guest[1][kind, HOSTILE], pages).tolist() for kind in ("private", "zero", "dirty")
    )
    for i, (upper, lower) in enumerate(painted):
        if pages[i] == 20_000:
            continue
        state = "private" if private[i] else "zero" if zero[i] else "shared"
        assert upper == colours[state], pages[i]
        if dirty[i]:
            assert lower == colours["private" if private[i] else "shared"], pages[i]
        else:
            assert lower not in colours.values(), pages[i]
    assert any(dirty)


def test_another_block_and_one_without_bitmaps_of_writes(browser: Browser, file: Path) -> None:
    opened(browser, file)
    browser.run(
        "(() => { const it = document.getElementById('map-block'); it.value = '1';"
        "it.dispatchEvent(new Event('change')); })()"
    )
    assert readout(browser) == ("Page 0 (offset 0x0): private, not known whether written.")


def test_where_detail_was_left_out_the_map_tells_the_mean(
    browser: Browser, guest: tuple[Capture, Bitmaps], tmp_path: Path
) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(page(memory_of(tmp_path, *guest, room_bytes=0), *whole_plan()))
    opened(browser, path)
    text = _at_page(browser, 70)
    assert text.startswith("Page 70 (offset 0x46000, gfn 0x146): on average (single pages are not")
    cell = expected(guest, 64, 127)
    shares = [float(it) / 100 for it in re.findall(r"([\d.]+) %", text)]
    assert shares == pytest.approx([it / 64 for it in cell[1:]], abs=0.001)


def test_a_browser_that_cannot_unpack_says_so(browser: Browser, file: Path) -> None:
    script = "delete window.DecompressionStream"
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.open(file)
    shown = browser.run(
        "['map-failed', 'map-box'].map((it) => !document.getElementById(it).hidden)"
    )
    browser.call("Page.removeScriptToEvaluateOnNewDocument", **added)
    assert shown == [True, False]


@pytest.mark.alone
def test_a_guest_of_1_tib_is_shown_within_a_second(browser: Browser, tmp_path: Path) -> None:
    """With as much detail as it may have."""
    npages = 2**28
    rng = np.random.default_rng(1)
    private = rng.integers(0, 2**64, npages // 64, np.uint64)
    facts = sound_capture()
    ram = BlockFacts("ram", npages, count(private, npages), None, 0)
    rom = msgspec.structs.replace(facts.blocks[1], name="rom")
    capture = msgspec.structs.replace(facts, blocks=(ram, rom), slots=())
    memory = memory_of(tmp_path, capture, {("private", "ram"): private})
    assert memory.detail.left_out
    (tmp_path / "a.html").write_bytes(page(memory, *whole_plan()))
    assert (tmp_path / "a.html").stat().st_size > 15 * 2**20
    assert min(shown_ms(browser, tmp_path / "a.html") for _ in range(3)) < 1000


def shown_ms(browser: Browser, path: Path) -> float:
    """Until the map is drawn; the words above it are there before."""
    browser.open(path)
    readout(browser)
    entries = "[performance.getEntriesByType('paint'), performance.getEntriesByName('map-shown')]"
    painted, mapped = browser.run(f"{entries}.map((it) => it[0].startTime)")
    return float(max(painted, mapped))
