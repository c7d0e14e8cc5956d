package hk.alipay.linkage;

/** The outcome of a call's content. */
public enum Outcome {
    /** This call sent nothing. An earlier UNKNOWN for the same request id stays UNKNOWN. */
    NOT_SENT("not_sent"),
    /** AlipayHK rejected the request in a verified response. The request had no effect. */
    REJECTED("rejected"),
    /** The request may or may not have taken effect. Only OK or REJECTED for the same id resolves this. */
    UNKNOWN("unknown");

    private final String word;

    Outcome(String word) {
        this.word = word;
    }

    /** Returns the outcome for the gateway's text; UNKNOWN if it is absent or newer than this client. */
    static Outcome of(String word) {
        for (Outcome outcome : values()) {
            if (outcome.word.equals(word)) {
                return outcome;
            }
        }
        return UNKNOWN;
    }

    /** Returns the gateway's text for this outcome. */
    @Override
    public String toString() {
        return word;
    }
}
