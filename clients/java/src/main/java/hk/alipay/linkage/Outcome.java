package hk.alipay.linkage;

/** What happened to the content of a call. */
public enum Outcome {
    /** This call sent nothing. It does not take back an UNKNOWN that you hold for the id already. */
    NOT_SENT("not_sent"),
    /** AlipayHK verifiably refused it for good; it had no effect. */
    REJECTED("rejected"),
    /** It may or may not have taken effect; only success or REJECTED for the same id ends the doubt. */
    UNKNOWN("unknown");

    private final String word;

    Outcome(String word) {
        this.word = word;
    }

    /** Reads a word of the gateway. One that is missing, or newer than this client, is UNKNOWN. */
    static Outcome of(String word) {
        for (Outcome outcome : values()) {
            if (outcome.word.equals(word)) {
                return outcome;
            }
        }
        return UNKNOWN;
    }

    /** Returns the gateway's word for it. */
    @Override
    public String toString() {
        return word;
    }
}
