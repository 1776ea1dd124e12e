"""python -m pocketzoo"""

from pocketzoo.cli.main import main

main()
