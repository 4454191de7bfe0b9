"""The HTML page: well-formed, complete, escaped, loading nothing; and in a browser, where there is one."""

import base64
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from multiresnet_bench import page, report

VOID = {"meta", "img", "br", "link"}
HOSTILE = "</td><script>throw 1</script>\"'&<b>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
PICTURE = report.Picture('a "picture" <of> x', SVG)


class Document(HTMLParser):
    """Tags with their attributes, tables as texts; fails where an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def all(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.tags if name == tag and attribute in attributes]


@pytest.fixture
def found(result):
    raw = [{"model": "c", "seed": 0, "error": 0.5, "curve": [[1.0, 2.0]], "network": {"depth": 3}}]
    runs = {**result, "name": "runs", "raw": raw, "command": "multiresnet-bench pde --seeds 1", "note": HOSTILE}
    runs["rows"] = [{**result["rows"][0], "model": HOSTILE}, *result["rows"][1:]]
    turns = {**result, "name": "turns", "repetitions": {"64": {"step": {HOSTILE: [0.5, 0.25]}}}, "commit": None}
    return {"runs": runs, "turns": turns}


def test_every_table_is_there_and_every_element_closed(found):
    document = Document(page.render(found, {"runs": PICTURE}))
    expected = []
    for result, below in (
        (found["runs"], [["model", "seed", "error"], ["c", "0", "0.5"]]),
        (found["turns"], [["of", "values"], [f"64 / step / {HOSTILE}", "0.5 0.25"]]),
    ):
        headings, _, cells = report.cells(result)
        expected += [[headings, *cells], below]
    assert document.tables == expected
    assert document.tables[0][1][0] == HOSTILE
    assert document.all("a", "href")[:2] == ["#runs", "#turns"] and document.all("section", "id") == ["runs", "turns"]
    assert len(set(document.all("div", "aria-label"))) == 4


def test_it_loads_nothing_and_runs_no_script_of_a_result(found):
    text = page.render(found, {"runs": PICTURE})
    document = Document(text)
    tags = [tag for tag, _ in document.tags]
    assert tags.count("script") == 1 and "link" not in tags and "b" not in tags
    assert document.all("script", "src") == []
    (source,) = document.all("img", "src")
    assert source.startswith("data:image/svg+xml;base64,") and base64.b64decode(source.split(",")[1]) == SVG
    assert document.all("img", "alt") == [PICTURE.alt]
    assert not re.search(r"https?:|url\(|@import|javascript:", text)
    assert "default-src 'none'" in "".join(document.all("meta", "content"))


def test_how_it_was_made_stands_below(found):
    text = page.render(found, {})
    facts = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert facts[:5] == [
        ("command", "<code>multiresnet-bench pde --seeds 1</code>"),
        ("commit", "0123456789ab"),
        ("date", "2025-01-31T12:00:00+00:00"),
        ("hardware", "cpu A CPU, cores 2, threads 1, system Linux x86_64"),
        ("versions", "python 3.12.0, torch 2.8.0"),
    ]
    assert facts[6] == ("commit", "none")


def test_the_json_can_be_saved_unless_it_is_large(found):
    found["turns"]["repetitions"] = {"step": [0.123456789] * 30_000}
    document = Document(page.render(found, {}))
    assert document.all("a", "download") == ["runs.json"]
    content = document.all("a", "href")[-1].removeprefix("data:application/json;base64,")
    assert json.loads(base64.b64decode(content)) == found["runs"]


def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), None)


LISTEN = """<script>
window.errors = [];
addEventListener("error", event => errors.push(event.message || event.target.outerHTML), true);
addEventListener("securitypolicyviolation", event => errors.push(event.violatedDirective));
</script>"""
CLICK = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table");
  const column = n => [...table.tBodies[0].rows].map(row => row.cells[n].textContent);
  const sorts = () => [...table.querySelectorAll("th")].map(heading => heading.getAttribute("aria-sort"));
  const found = {errors, orders: [], sorts: []};
  table.querySelectorAll("th button").forEach((button, n) => {
    for (const click of [1, 2]) {
      button.focus();
      button.click();
      found.orders.push(column(n));
      found.sorts.push(sorts());
    }
    found.focus = document.activeElement === button;
  });
  found.images = [...document.images].map(image => image.complete && image.naturalWidth);
  found.background = getComputedStyle(document.body).backgroundColor;
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>"""


@pytest.mark.skipif(browser() is None, reason="no Chromium on the PATH, none in $CHROME")
def test_in_a_browser_it_sorts_shows_its_pictures_and_logs_no_error(found, tmp_path):
    table = found["runs"]
    table["rows"] = [
        {"model": "network 10", "params": 1_000_000, "macs": 1.31e9, "error": 10.2, "error_sd": 3.0},
        {"model": "other: does not import"},
        {"model": "network 9", "params": 950_000, "macs": 9.5e8, "error": 9.5, "error_sd": 4.0},
        {"model": "Network 1", "params": 2_162_067, "macs": 1.2e10, "error": "nan", "error_sd": "nan"},
        {"model": "apple", "params": 90, "macs": 1.309e9, "error": 0.0365, "error_sd": 0.0004},
    ]
    text = page.render(found, {"runs": PICTURE, "turns": PICTURE})
    file = tmp_path / "page.html"
    file.write_text(text.replace("<head>", f"<head>{LISTEN}").replace("</body>", f"{CLICK}</body>"), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    ran = subprocess.run([browser(), *options, profile, file.as_uri()], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (content,) = re.findall(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    seen = json.loads(content.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["errors"] == [] and "CONSOLE" not in ran.stderr, ran.stderr
    assert seen["images"] == [8, 8]
    assert seen["focus"] is True
    assert seen["background"] in ("rgb(255, 255, 255)", "rgb(21, 24, 28)")  # the style was applied
    names = ["apple", "Network 1", "network 9", "network 10", "other: does not import"]
    errors = ["0.0365 ± 0.0004", "9.5000 ± 4.0000", "10.2000 ± 3.0000"]
    assert seen["orders"] == [
        names,
        names[::-1],
        ["90", "950,000", "1,000,000", "2,162,067", "–"],
        ["2,162,067", "1,000,000", "950,000", "90", "–"],
        ["950 M", "1.31 G", "1.31 G", "12 G", "–"],
        ["12 G", "1.31 G", "1.31 G", "950 M", "–"],
        [*errors, "nan", "–"],
        [*errors[::-1], "nan", "–"],
    ]
    for click, sorts in enumerate(seen["sorts"]):
        direction = ("ascending", "descending")[click % 2]
        assert sorts == [direction if column == click // 2 else None for column in range(4)]
