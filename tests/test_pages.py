"""What prose pages promise about the code."""

import re

from pydantic import BaseModel

from lib import paths, schema


def test_every_key_of_a_study_stands_in_the_tables_once() -> None:
    page = (paths.ROOT / "book/rerun.md").read_text("utf-8").split("## Every key of a study")[1]
    tables = {}
    for part in page.split("\n### ")[1:]:
        keys = re.findall(r"^\| `(\w+)` \|", part, re.M)
        tables[part.partition("\n")[0]] = sorted(keys)
    fields = schema.Study.model_fields
    expected = {
        "The study": set(fields) - {"name", "file"},
        "A text source": set(schema.NamedText.model_fields),
        "A task": set(schema.Task.model_fields),
    }
    for key, field in fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not schema.Text:
            expected[f"`{key}`"] = set(kind.model_fields)
    found = {
        next(title for title in expected if head.startswith(title)): keys
        for head, keys in tables.items()
    }
    assert found == {title: sorted(keys) for title, keys in expected.items()}
