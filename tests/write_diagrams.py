"""Write the parts of spec.md that are made from the model. Run it when the model has changed: python tests/write_diagrams.py"""

from __future__ import annotations

from spec import SPEC, with_marked

from snapspec.model.diagram import answers, life_of_a_key

#: Every part, by the name in its marker.
PARTS = {"life of a key": life_of_a_key, "answers": answers}


def main() -> None:
    """Rewrite spec.md in place."""
    text = SPEC.read_text("utf-8")
    for name, make in PARTS.items():
        text = with_marked(name, make(), text)
    SPEC.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
