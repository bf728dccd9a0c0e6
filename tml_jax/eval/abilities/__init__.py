"""The suite `interactivity`: what a model can do beyond turns, on scenes made for it, each figure beside its target."""
