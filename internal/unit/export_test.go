package unit

// Parse exposes what is read from /proc/PID/cgroup.
func Parse(text string) (marker, path string) {
	g := parse(text)
	return g.marker, g.path
}
