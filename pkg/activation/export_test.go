package activation

// TakeFrom is Take with another environment and another first descriptor.
func TakeFrom(env map[string]string, pid int, pidfdID uint64, first int) (Result, []error) {
	return environment{
		lookup:  func(key string) (string, bool) { v, ok := env[key]; return v, ok },
		unset:   func(key string) error { delete(env, key); return nil },
		pid:     pid,
		pidfdID: func() (uint64, error) { return pidfdID, nil },
		first:   first,
	}.take()
}
