"""Two products around one date, each pixel from the nearest clear day."""
