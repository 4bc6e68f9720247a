"""Large images of many formats behind one Protocol."""
