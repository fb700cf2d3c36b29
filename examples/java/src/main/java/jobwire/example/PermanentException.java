package jobwire.example;

/** Fails a job for good: no retry can help. */
public final class PermanentException extends Exception {
    private final String code;

    public PermanentException(String code, String message) {
        super(message);
        this.code = code;
    }

    public String code() {
        return code;
    }
}
