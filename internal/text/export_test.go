package text

// Distance exposes what [Nearest] compares by.
var Distance = distance
