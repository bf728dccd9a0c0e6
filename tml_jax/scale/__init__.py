"""What a model takes on a pod: counted on paper, and compiled for chips that are not here."""
