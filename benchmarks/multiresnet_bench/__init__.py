"""Benchmarks: a module for each command of `multiresnet-bench`, a JSON for each table and picture of the documentation.

A command's module has these functions:

    add_arguments(parser: argparse.ArgumentParser) -> None
    run(options: argparse.Namespace) -> dict            # JSON-able, with "rows"; see `results`
    plot(result: Mapping) -> matplotlib.figure.Figure   # from the JSON alone; see `plots`
    table(result: Mapping) -> rich.table.Table          # optional; without it the rows as "columns" says
"""
