"""One rule, one file. All pure: values and `now` in, values out."""
