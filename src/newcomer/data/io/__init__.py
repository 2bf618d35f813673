"""Readers and writers of images, texts, tables and click logs."""
