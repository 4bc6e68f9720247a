"""Objects of a label map: connected parts with a number each, labelled whole or across windows."""
