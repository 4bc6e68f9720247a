"""Objects of a label map: numbered connected parts, in one array or across windows."""
