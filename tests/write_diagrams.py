"""Write the parts of spec.md that are made from the model. Run it when the model has changed: python tests/write_diagrams.py"""

from __future__ import annotations

from spec import SPEC, with_marked

from snapspec.model import diagram

#: Every part, by the name in its marker.
PARTS = {
    "life of a key": diagram.life_of_a_key,
    "answers": diagram.answers,
    "life of a record": diagram.life_of_a_record,
    "life of a pair": diagram.life_of_a_pair,
    "life of a handle": diagram.life_of_a_handle,
    "answers by record": diagram.answers_by_record,
    "answers by handle": diagram.answers_by_handle,
    "answers by manager": diagram.answers_by_manager,
}


def main() -> None:
    """Rewrite spec.md in place."""
    text = SPEC.read_text("utf-8")
    for name, make in PARTS.items():
        text = with_marked(name, make(), text)
    SPEC.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
