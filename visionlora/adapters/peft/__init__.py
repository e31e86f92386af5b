"""PEFT's folders, read and written without PEFT."""
