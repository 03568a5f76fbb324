"""Clinical uses of the maps: steps that are run only when they are asked for."""
