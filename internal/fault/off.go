//go:build !fault

// Package fault names the points at which a test may kill, delay or starve the
// daemon. In the shipped binary a point is an empty function; the build tag
// "fault" gives it a meaning (see on.go).
package fault

// Point does nothing in this build.
func Point(string) {}

// Names is empty in this build.
func Names() []string { return nil }
