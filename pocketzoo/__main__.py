"""Run the command line: python -m pocketzoo."""

from pocketzoo.cli.main import main

main()
