"""Fuzzing: damaged and hostile files are refused in a sentence, whatever they hold."""
