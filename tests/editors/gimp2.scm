; What tests/editors/gimp2.py asks of GIMP 2.10. No line of a script can compare pixels, so layers are
; saved as plain TIFF files, and whoever asked compares those. GIMP evaluates each -b in a process of its own,
; so this stands before every line that needs it.

(define (opened path) (car (gimp-file-load RUN-NONINTERACTIVE path path)))
(define (layers image) (vector->list (cadr (gimp-image-get-layers image))))
(define (active image) (car (gimp-image-get-active-layer image)))

; Saves one layer of an image, as it is, without mask.
(define (save image at path)
  (let* ((copy (car (gimp-image-duplicate image)))
         (kept (list-ref (layers copy) at)))
    (for-each (lambda (layer) (if (not (= layer kept)) (gimp-image-remove-layer copy layer)))
              (layers copy))
    (if (not (= -1 (car (gimp-layer-get-mask kept)))) (gimp-layer-remove-mask kept MASK-DISCARD))
    (gimp-layer-set-offsets kept 0 0)
    (gimp-item-set-visible kept TRUE)
    (file-tiff-save RUN-NONINTERACTIVE copy kept path path 0)
    (gimp-image-delete copy)))

(define (write-text path text)
  (call-with-output-file path (lambda (port) (display text port))))

(define (edit image layer attributes)
  (car (plug-in-semblance-edit RUN-NONINTERACTIVE image layer attributes 0 "" "" 1 0 "" "")))

; Edits the picture `in` and saves the new layer and the one below it.
(define (edited in out change)
  (let* ((image (opened in)))
    (change image (active image))
    (save image 0 (string-append out ".tif"))
    (save image 1 (string-append out "-below.tif"))
    (write-text (string-append out ".name") (car (gimp-item-get-name (active image))))
    (gimp-image-delete image)))

; Saves a picture as the layers above are, to compare with.
(define (again in out)
  (let* ((image (opened in)))
    (save image 0 out)
    (gimp-image-delete image)))

; The picture `in` in another form.
(define (form in out change)
  (let* ((image (opened in)))
    (change image (active image))
    (file-tiff-save RUN-NONINTERACTIVE image (active image) out out 0)
    (gimp-image-delete image)))

; Alpha that grows from the top, 0 there.
(define (translucent image layer)
  (gimp-layer-add-alpha layer)
  (let* ((mask (car (gimp-layer-create-mask layer ADD-MASK-WHITE)))
         (height (car (gimp-drawable-height layer))))
    (gimp-layer-add-mask layer mask)
    (gimp-context-set-foreground '(0 0 0))
    (gimp-context-set-background '(255 255 255))
    (gimp-context-set-gradient-fg-bg-rgb)
    (gimp-drawable-edit-gradient-fill mask GRADIENT-LINEAR 0 FALSE 1 0 FALSE 0 40 0 (- height 40))
    (gimp-layer-remove-mask layer MASK-APPLY)))

; Layers, their names, visibility and what the first one keeps, for the caller to read.
(define (describe image path)
  (call-with-output-file path
    (lambda (port)
      (for-each
        (lambda (layer)
          (display (car (gimp-item-get-name layer)) port)
          (display (if (= TRUE (car (gimp-item-get-visible layer))) "|visible|" "|hidden|") port)
          (display (gimp-drawable-offsets layer) port)
          (display (if (= -1 (car (gimp-layer-get-mask layer))) "|plain" "|masked") port)
          (newline port))
        (layers image)))))

(define (kept image name path)
  (write-text path (caddr (car (gimp-item-get-parasite (car (layers image)) name)))))
