package text

// TimeLayout is how instants are printed, always in UTC.
const TimeLayout = "2006-01-02 15:04:05Z"
