"""Print the page of recipes: `python -m qsim.blocks > docs/block-recipes.md`."""

import sys

from qsim.blocks.table import page

if __name__ == "__main__":
    sys.stdout.write(page())
