"""Benchmarks: a module for each command of `multiresnet-bench`, a JSON for each table of the documentation.

A command's module has three functions:

    add_arguments(parser: argparse.ArgumentParser) -> None
    run(options: argparse.Namespace) -> dict            # JSON-able, with "rows"; see `results`
    table(result: Mapping) -> rich.table.Table
"""
