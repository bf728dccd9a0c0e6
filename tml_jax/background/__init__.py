"""The background model: tasks that the interaction model hands over, and results that come back while it talks."""
