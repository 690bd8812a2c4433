"""Write the recipes' tables into docs/recipes.md, between its markers: `python docs/make_recipes.py`."""

import re
from pathlib import Path

from bert_keras.training import RECIPES, create_recipe

PAGE = Path(__file__).parent / "recipes.md"


def with_tables(text: str) -> str:
    """Return a page with each recipe's table between the markers of its name."""
    for name in RECIPES:
        marker = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        table = create_recipe(name).to_markdown()
        text, count = re.subn(marker, lambda m, table=table: f"{m[1]}\n{table}\n\n{m[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"{PAGE} must have one place for the recipe {name!r}. It has {count}.")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
