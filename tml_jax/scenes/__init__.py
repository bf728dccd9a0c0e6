"""Scenes: conversations that are made up, in sound and pictures, with what is due in each."""
