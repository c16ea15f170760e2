package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func asText(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		hint := ""
		switch v.(type) {
		case int64, float64, bool:
			hint = fmt.Sprintf("write \"%v\"", v)
		}
		return "", bad(hint, "must be a string, not %s", kind(v))
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", bad("", "holds a NUL byte")
	}
	return s, nil
}

func asList(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case []map[string]any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return items, nil
	case string:
		return nil, bad("write ["+quoted(strings.Fields(v))+"]", "must be an array, not a string")
	}
	return nil, bad("write it in [ ]", "must be an array, not %s", kind(v))
}

func asDuration(v any) (time.Duration, error) {
	switch v := v.(type) {
	case string:
		return parseDuration(v)
	case int64, float64:
		return 0, bad(fmt.Sprintf("write \"%vs\"", v), "must be a duration with its unit, not a number")
	}
	return 0, bad(`write "30s"`, "must be a duration, not %s", kind(v))
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		hint := `a number and its unit, such as "500ms", "30s" or "2m"`
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			hint = fmt.Sprintf("write %q", s+"s")
		}
		return 0, bad(hint, "%q is not a duration", s)
	}
	if d < 0 {
		return 0, bad("", "%q is negative", s)
	}
	if s == "0" {
		return 0, bad(`write "0s"`, "%q is not a duration", s)
	}
	return d, nil
}

func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any, []map[string]any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date"
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return strings.Join(out, ", ")
}
