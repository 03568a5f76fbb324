"""Registration, brain, atlases: the only place that imports ants."""
