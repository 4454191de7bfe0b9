import pytest
from multiresnet_bench import report, results
from multiresnet_bench.cli import main

PAGE = """# Page

<!-- table: small -->
old
<!-- end -->

Text with | and `<!-- end -->`.

<!-- table: later -->
<!-- end -->

<!-- picture: later -->
![old](old.svg)
<!-- end -->
"""


@pytest.fixture
def page(tmp_path, result):
    results.write(result, tmp_path / "results" / "small.json")
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def run(page, *more):
    html = ["--html", str(page.parent / "report.html")]
    return main(["report", "--results", str(page.parent / "results"), "--page", str(page), *html, *more])


def test_tables_are_put_between_their_markers(page, capsys):
    assert run(page) == 0
    text = page.read_text()
    assert (
        "<!-- table: small -->\n\n"
        "| model | parameters | MACs | error |\n"
        "| --- | --: | --: | --: |\n"
        "| a\\|b | 1,234,567 | 806 M | 0.0365 ± 0.0004 |\n"
        "| c | 1,300,000 | 480 M | – |\n\n"
        "<small>`multiresnet-bench small`: commit 0123456789ab, 2025-01-31, A CPU, 1 thread, torch 2.8.0.</small>\n\n"
        "<!-- end -->\n\nText with | and"
    ) in text
    assert text.startswith("# Page\n\n") and text.endswith(PAGE[PAGE.index("<!-- table: later") :])
    printed = capsys.readouterr().err
    assert "no result for the table later" in printed and "no result for the picture later" in printed


def test_a_second_run_changes_nothing(page):
    assert run(page, "--check") == 1
    run(page)
    first, modified = page.read_bytes(), page.stat().st_mtime_ns
    assert run(page, "--check") == 0
    assert run(page) == 0
    assert page.read_bytes() == first and page.stat().st_mtime_ns == modified


def test_a_result_without_a_place_is_named(page, result, capsys):
    results.write(result, page.parent / "results" / "other.json")
    assert run(page) == 0
    assert "no place for the result other" in capsys.readouterr().err


def test_an_open_marker_is_refused(page, capsys):
    page.write_text(PAGE.replace("<!-- table: later -->\n<!-- end -->", "<!-- table: later -->"))
    before = page.read_bytes()
    assert run(page) == 2
    assert "has no <!-- end -->" in capsys.readouterr().err
    assert page.read_bytes() == before


def test_pictures_are_put_between_their_markers(page, result, capsys):
    result |= {"command": "multiresnet-bench pde --seeds 1", "name": "later"}
    result["measure"] = {"key": "error", "label": "error [%] \\", "lower_is_better": True}
    result["raw"] = [{"model": "c", "seed": 0, "curve": [[1.0, 2.0], [2.0, 1.0]]}]
    results.write(result, page.parent / "results" / "later.json")
    assert run(page) == 0
    alt = r"error \[%\] \\ (↓ better) against training time, s; error \[%\] \\ (↓ better) against MACs"
    place = f"<!-- picture: later -->\n\n![{alt}](images/benchmarks/later.svg)\n\n<!-- end -->\n"
    assert page.read_text().endswith(place)
    picture = page.parent / "images" / "benchmarks" / "later.svg"
    assert "a|b" in picture.read_text()
    first, modified = picture.read_bytes(), picture.stat().st_mtime_ns
    assert run(page) == 0
    assert picture.read_bytes() == first and picture.stat().st_mtime_ns == modified
    assert "no result" not in capsys.readouterr().err
    assert [path.name for path in picture.parent.iterdir()] == ["later.svg"]  # only what the page shows
    picture.unlink()
    assert run(page, "--check") == 0  # of the tables only


def test_a_result_older_than_its_picture_has_none(result):
    assert report.picture({**result, "command": "multiresnet-bench pde --jobs 1"}) is None
    assert report.picture({**result, "command": "multiresnet-bench retired"}) is None
    assert report.picture({**result, "command": "multiresnet-bench"}) is None


def test_the_results_of_the_repository_read():
    for path in sorted((results.REPOSITORY / "benchmarks" / "results").glob("*.json")):
        found = results.read(path)
        picture = report.picture(found)
        if report.command_of(found) in ("haar", "speed", "cells") or "measure" in found:
            assert picture is not None and len(picture.svg) < 200_000


def test_the_html_page_is_written_unless_not_wanted(page):
    html = page.parent / "report.html"
    assert run(page, "--check") == 1 and run(page, "--no-html") == 0
    assert not html.exists()
    assert run(page) == 0
    assert "1,234,567" in html.read_text()


def test_what_a_killed_writer_left_behind_is_passed_over(page, capsys):
    (page.parent / "results" / "small.unfinished.json").write_text('{"rows": [')
    assert run(page) == 0
    assert "unfinished" not in capsys.readouterr().err + (page.parent / "report.html").read_text()


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
        (0.03651, ".4f", "0.0365"),
        (2162067, ",d", "2,162,067"),
        (1.35e9, ".3g", "1.35 G"),
        (12345, "", "12345"),
        (0.123456, "", "0.123"),
        (3, ".1f", "3.0"),
        (None, ".1f", "–"),
        ("nan", ".1f", "nan"),
        (True, "", "True"),
        ("text", ".3f", "text"),
    ],
)
def test_digits(value, spec, shown):
    assert report.show(value, spec) == shown


def test_columns_are_optional_and_one_seed_has_no_deviation():
    rows = [{"model": "a", "step_ms": 1.5, "step_ms_sd": 0.0, "seeds": 1}]
    headings, right, cells = report.cells({"rows": rows})
    assert headings == ["model", "step ms", "seeds"]
    assert right == [False, True, True]
    assert cells == [["a", "1.5", "1"]]


def test_a_run_that_diverged_leaves_its_column_one_of_numbers():
    rows = [{"model": "a", "error": 0.5, "error_sd": 0.1}, {"model": "b", "error": "nan", "error_sd": "nan"}]
    _, right, cells = report.cells({"rows": rows})
    assert right == [False, True]
    assert cells == [["a", "0.5 ± 0.1"], ["b", "nan"]]


def test_a_gpu_result_names_the_gpu(result):
    result["hardware"]["gpu"], result["config"]["device"], result["commit"] = "A GPU", "cuda:0", None
    assert "outside a checkout, 2025-01-31, A GPU" in report.provenance(result)
