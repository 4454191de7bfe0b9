"""Pictures: the artists hold the numbers of the result, the bytes are the same each time, nothing is cut or covered."""

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from multiresnet_bench import haar, plots, speed

MEASURE = {
    "key": "error",
    "label": "relative L2 error after a ten-step rollout",
    "lower_is_better": True,
    "curve_label": "relative L2 error of one step on validation data",
}
COSTS = {"step_ms": "training step, ms", "macs": "MACs", "saved": "saved for backward, MB"}


def made_up(models=3, seeds=3, limits=(100,), lower_is_better=True):
    """A result like those of the training benchmarks, with a model that could not be built."""
    rng = np.random.default_rng(0)
    rows, raw = [], []
    for i, limit in itertools.product(range(models), limits):
        name, final = f"some-network-{i}", 0.1 * (1 + 0.2 * i) * (100 / limit) ** 0.3
        times = limit * np.arange(1, 9) / 8
        values = [final * (1 + 5 * np.exp(-times / 20)) * rng.uniform(0.95, 1.05, 8) for _ in range(seeds)]
        common = {"model": name, "limit": f"{limit} s", "seconds": limit}
        raw += [{**common, "seed": seed, "curve": np.stack([times, v], 1).tolist()} for seed, v in enumerate(values)]
        costs = {"step_ms": 20 * 1.4**i, "macs": 5e7 * 1.3**i, "saved": 3 * 1.5 ** ((i + 1) % models)}
        ends = [v[-1] for v in values]
        sd = float(np.std(ends, ddof=1)) if seeds > 1 else 0.0
        rows.append({**common, **costs, "params": 7, "seeds": seeds, "error": float(np.mean(ends)), "error_sd": sd})
    rows.append({"model": "other: its package does not import"})
    return {"rows": rows, "raw": raw, "measure": {**MEASURE, "lower_is_better": lower_is_better}}


def panel(figure, xlabel):
    (ax,) = [
        ax for ax in figure.axes if ax.get_xlabel() == xlabel and "validation" not in ax.get_ylabel().replace("\n", " ")
    ]
    return ax


def points(ax):
    """Label -> (points, ends of the error bars) of what `errorbar` drew."""
    return {
        bars.get_label(): (bars[0].get_xydata(), [segment[:, 1] for segment in bars[2][0].get_segments()])
        for bars in ax.containers
    }


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found


def draw(figure):
    with rc_context(plots.STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return canvas.get_renderer()


def colours(figure):
    """Colours of what stands in the legend, by label, in all panels and the legend."""
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    found = {text: {to_hex(handle.get_color())} for text, handle in zip(texts, legend.get_lines())}
    for ax in figure.axes:
        for artist in [*ax.get_lines(), *(bars[0] for bars in ax.containers)]:
            if artist.get_label() in found:
                found[artist.get_label()].add(to_hex(artist.get_color()))
        for bars in ax.containers:
            found[bars.get_label()].add(to_hex(bars[0].get_color()))
    return found


@pytest.mark.parametrize("seeds", [1, 3])
def test_points_and_deviations_are_those_of_the_rows(seeds):
    result = made_up(seeds=seeds)
    figure = plots.training(result)
    assert len(figure.axes) == 4
    for key, label in COSTS.items():
        drawn = points(panel(figure, label))
        assert len(drawn) == 3
        for row in result["rows"][:3]:
            ((x, y),), (bar,) = drawn[row["model"]]
            assert (x, y) == (row[key], row["error"])
            np.testing.assert_allclose(bar, [y - row["error_sd"], y + row["error_sd"]])


def test_the_curve_is_the_mean_over_seeds_where_all_have_been():
    result = made_up()
    result["raw"] = [
        {"model": "some-network-0", "seed": 0, "curve": [[0.0, 1.0], [2.0, 3.0], [4.0, 3.0]]},
        {"model": "some-network-0", "seed": 1, "curve": [[1.0, 4.0], [3.0, 8.0]]},
        {"model": "some-network-1", "seed": 0, "curve": [[1.0, 7.0], [2.0, 6.0], [3.0, "nan"], [4.0, None]]},
    ]
    for figure in (plots.training(result), plots.curves(result)):
        ax = figure.axes[0]
        mean = line(ax, "some-network-0").get_xydata()
        np.testing.assert_allclose(mean, [[1, (2 + 4) / 2], [2, (3 + 6) / 2], [3, (3 + 8) / 2]])
        thin = [line.get_xydata().tolist() for line in ax.get_lines() if line.get_linewidth() < 1]
        assert thin == [run["curve"] for run in result["raw"][:2]]
        np.testing.assert_array_equal(
            line(ax, "some-network-1").get_xydata(), [[1, 7], [2, 6], [3, np.nan], [4, np.nan]]
        )
        assert ax.get_yscale() == "log"


def test_several_training_times_have_a_panel_and_the_longest_the_others():
    result = made_up(limits=(100, 25, 50))
    result["rows"][0]["seconds"] = 100.3  # as measured
    figure = plots.training(result)
    drawn = points(panel(figure, "training time, s"))
    longest = points(panel(figure, "MACs"))
    for name in ("some-network-0", "some-network-2"):
        rows = [row for row in result["rows"] if row["model"] == name]
        expected = sorted([row["seconds"], row["error"]] for row in rows)
        np.testing.assert_array_equal(drawn[name][0], expected)
        assert longest[name][0].tolist() == [[rows[0]["macs"], rows[0]["error"]]]
        assert line(figure.axes[0], name).get_xdata()[-1] == 100


def test_what_has_no_number_is_left_out():
    result = made_up()
    result["rows"][1] |= {"error": "nan", "error_sd": "nan"}
    result["rows"][0]["saved"] = None
    figure = plots.training(result)
    assert points(panel(figure, "MACs")).keys() - {"some-network-1"} == {"some-network-0", "some-network-2"}
    assert len(points(panel(figure, "MACs"))["some-network-1"][0]) == 0
    assert len(points(panel(figure, COSTS["saved"]))["some-network-0"][0]) == 0
    assert len(line(figure.axes[0], "some-network-1").get_xdata()) == 8  # it has a curve
    assert "other" not in " ".join(colours(figure))
    for row in result["rows"]:
        row["error"] = None  # selection on validation data: no row has a number
    assert len(plots.training(result).axes) == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.training({**result, "raw": []})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.booleans())
def test_nothing_beats_the_front_and_the_front_beats_all_else(values, lower):
    def beats(a, b):
        better = a[1] <= b[1] if lower else a[1] >= b[1]
        return a != b and a[0] <= b[0] and better

    front = plots.front(values, lower_is_better=lower)
    assert front == sorted(set(front))
    assert set(front) == {b for b in values if not any(beats(a, b) for a in values)}


@pytest.mark.parametrize("lower", [True, False])
def test_the_front_is_drawn_around_what_it_beats(lower):
    result = made_up(lower_is_better=lower)
    for row, cost, error in zip(result["rows"], (1.0, 2.0, 4.0), (0.2, 0.1, 0.3)):
        row |= {"macs": cost, "error": error}
    front = line(panel(plots.training(result), "MACs"), "front")
    assert front.get_drawstyle() == "steps-post"
    expected = [(1, 0.3), (1, 0.2), (2, 0.1), (4, 0.1)] if lower else [(1, 0.1), (1, 0.2), (4, 0.3), (4, 0.3)]
    assert list(map(tuple, front.get_xydata())) == expected


@pytest.mark.parametrize(("models", "limits"), [(3, (100,)), (12, (100,)), (12, (50, 100, 200))])
def test_models_are_told_apart_and_no_text_is_cut_or_covered(models, limits):
    result = made_up(models=models, limits=limits)
    figure = plots.training(result)
    found = colours(figure)
    assert len(found) == models and all(len(used) == 1 for used in found.values())
    handles = figure.legends[0].get_lines()
    assert len({(h.get_color(), h.get_marker(), h.get_linestyle()) for h in handles}) == models
    assert len(plots.svg(figure)) < 200_000
    renderer = draw(figure)
    texts = [*figure.legends[0].get_texts()]
    for ax in figure.axes:
        labels = [[t for t in axis.get_ticklabels() if t.get_visible()] for axis in (ax.xaxis, ax.yaxis)]
        low, high = sorted(ax.get_xlim())
        labels[0] = [t for t in labels[0] if low <= t.get_position()[0] <= high]
        low, high = sorted(ax.get_ylim())
        labels[1] = [t for t in labels[1] if low <= t.get_position()[1] <= high]
        texts += [*labels[0], *labels[1], ax.xaxis.label, ax.yaxis.label]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    assert len(boxes) > models + 8
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, name
    for (a, box_a), (b, box_b) in itertools.combinations(boxes, 2):
        assert not box_a.padded(-1).overlaps(box_b.padded(-1)), f"{a} covers {b}"


def allocations():
    rows = [
        {"allocation": "u-net", "group": "reference", "reference": True, "error": 0.2, "error_sd": 0.01},
        {"allocation": "fine", "group": "blocks", "reference": False, "error": 0.18, "error_sd": 0.02},
        {"allocation": "blocks", "group": "blocks", "error": 0.25, "error_sd": 0.03},
        {"allocation": "wide", "group": "width", "error": "nan", "error_sd": "nan"},
        {"allocation": "other: does not import", "group": "width"},
    ]
    return {"rows": rows, "measure": {**MEASURE, "lower_is_better": False}}


def test_allocations_stand_in_their_groups_beside_the_reference():
    result = allocations()
    figure = plots.allocation(result)
    (ax,) = figure.axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["reference", "u-net (reference)", "blocks", "fine", "blocks", "width", "wide"]
    bold = [text.get_fontweight() == "bold" for text in ax.get_yticklabels()]
    assert bold == [True, False, True, False, False, True, False]
    dots = {bars[0].get_ydata()[0]: bars for bars in ax.containers}
    for place, row in zip((1, 3, 4), result["rows"]):
        assert dots[place][0].get_xdata().tolist() == [row["error"]]
        (segment,) = dots[place][2][0].get_segments()
        np.testing.assert_allclose(segment[:, 0], [row["error"] - row["error_sd"], row["error"] + row["error_sd"]])
    assert [text.get_text() for text in ax.texts] == ["no number"]
    assert [0.2, 0.2] in [list(line.get_xdata()) for line in ax.get_lines()]
    (band,) = [patch for patch in ax.patches]
    np.testing.assert_allclose([band.get_x(), band.get_x() + band.get_width()], [0.19, 0.21])
    assert ax.get_xlabel() == f"{MEASURE['label']} (better →)"
    draw(figure)


def dots_of(ax):
    """Series -> values by line, from the looks of the legend."""
    found = {}
    for drawn in ax.get_lines():
        if drawn.get_marker() != "None":
            found[drawn.get_marker()] = dict(zip(np.round(drawn.get_ydata()).astype(int), drawn.get_xdata()))
    return found


def test_speed_draws_the_ratios_of_the_largest_size():
    def row(size, model, step, saved, macs):
        return {"size": size, "model": model, "step_ratio": step, "saved_ratio": saved, "macs_ratio": macs}

    rows = [
        *(row("64²", name, 9.0, 9.0, 9.0) for name in ("reference", "quick", "slow")),
        *(row("128²", *values) for values in (("reference", 1, 1, 1), ("slow", 3, None, 2), ("quick", 0.3, 0.4, 0.5))),
        {"size": "128²", "model": "other: does not import"},
    ]
    figure = speed.plot({"rows": rows})
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["quick", "reference", "slow"]
    step, saved, macs = dots_of(ax).values()
    assert step == {0: 0.3, 1: 1, 2: 3} and macs == {0: 0.5, 1: 1, 2: 2}
    assert saved == {0: 0.4, 1: 1, 2: pytest.approx(np.nan, nan_ok=True)}
    assert ax.get_xlabel() == "ratio to reference at 128² (← better)" and ax.get_xscale() == "log"
    draw(figure)


def test_haar_draws_a_panel_for_each_operation():
    def row(shape, name, *values, layout="contiguous"):
        operations = dict(zip(haar.OPERATIONS, values))
        return {"shape": shape, "layout": layout, "implementation": name, **operations}

    rows = [
        row("8 × 8", "ours", 2.0, 3.0, 4.0),
        row("8 × 8", "theirs", 12.0, 13.0, None),
        row("8 × 8", "ours", 99.0, 99.0, 99.0, layout="channels_last"),
        row("16", "ours", 5.0, 6.0, 7.0),
        {"shape": "16", "layout": "contiguous", "implementation": "theirs: has none"},
    ]
    figure = haar.plot({"rows": rows})
    assert [ax.get_xlabel() for ax in figure.axes] == ["analysis", "synthesis", "forward + backward"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["8 × 8", "16"]
    for ax, ours, theirs in zip(figure.axes, ((2, 5), (3, 6), (4, 7)), (12, 13, np.nan)):
        first, second = dots_of(ax).values()
        assert tuple(first.values()) == ours
        np.testing.assert_array_equal(list(second.values()), [theirs, np.nan])
    draw(figure)


def test_equal_results_are_equal_bytes_and_names_stay_text():
    result = made_up()
    name = '<b>&"$x$ _a'
    for row in [*result["rows"], *result["raw"]]:
        row["model"] = row["model"].replace("some-network-1", name)
    first, second = (plots.svg(plots.training(result)) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first
    texts = [text.text for text in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")]
    assert {name, "some-network-2", "MACs"} <= set(texts)
    result["rows"][0]["error"] *= 1.01
    assert plots.svg(plots.training(result)) != first


def test_the_description_names_what_is_drawn():
    curves, *costs = plots.describe(plots.training(made_up())).split("; ")
    assert curves == "relative L2 error of one step on validation data (↓ better) against training time, s"
    first, *others = COSTS.values()
    assert costs == [f"{MEASURE['label']} (↓ better) against {first}", *others]
